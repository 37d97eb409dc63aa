"""verl's manager of rollout servers, for one server and one rollout worker on a machine: nothing that waits or imports
for longer than it works."""

from functools import partial
from typing import Any

from verl.workers.rollout.llm_server import LLMServerManager
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from verl_ext.cpu.early_start import start_worker, with_early_server
from verl_ext.in_process import InProcess


class ServerManager(LLMServerManager):
    """verl's manager. On a CPU the first server's process may be there already, and the rollout worker imports beside
    the servers; and of one server that one worker asks, verl's load balancer is in the worker's process."""

    rollout_replica_class: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rollout_replica_class = with_early_server(self.rollout_replica_class)

    async def _initialize_llm_servers(self, *args: Any, **kwargs: Any) -> None:
        start_worker(self.config)
        await super()._initialize_llm_servers(*args, **kwargs)

    async def _init_global_load_balancer(self) -> None:
        rollout = self.rollout_config
        alone = len(self.server_handles) == 1 and rollout.agent.num_workers == 1
        if not alone or rollout.router_config_path or self._load_balancer_cls:
            await super()._init_global_load_balancer()
            return
        servers = dict(zip(self.server_addresses, self.server_handles, strict=True))
        balancer = partial(GlobalRequestLoadBalancer, servers, full_determinism=rollout.full_determinism)
        self.global_load_balancer = InProcess(balancer)
