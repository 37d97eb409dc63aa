"""Start-up check of what rows are trained for, and of what changes their advantages."""

from omegaconf import DictConfig

from recipe.critique_grpo.options import CALIBRATED, LOSS_MODE, NOTHING, POLICY_GRADIENT, CritiqueGRPOConfig
from recipe.critique_grpo.startup.ranks import sequence_parallel


def objective_problems(config: DictConfig, options: CritiqueGRPOConfig) -> list[str]:
    """What rows cannot be trained for."""
    problems = []
    objective = options.loss.objective
    if options.expert.column is not None and options.judges:
        problems.append(
            "critique_grpo.expert.column is set, but a demonstration has no critique that could be its reward: set "
            "critique_grpo.reward.source=rule."
        )
    if objective.is_policy_gradient:
        return problems
    own = (config.algorithm.adv_estimator, config.actor_rollout_ref.actor.policy_loss.loss_mode)
    if own != ("critique_grpo", LOSS_MODE):
        problems.append(
            "critique_grpo.loss.objective is for this recipe's loss: set algorithm.adv_estimator=critique_grpo and "
            f"actor_rollout_ref.actor.policy_loss.loss_mode={LOSS_MODE}, or leave all objectives at policy_gradient."
        )
    k, shown = options.refinement.num if options.refines else 0, int(options.expert.column is not None)
    rows = {"initial": config.actor_rollout_ref.rollout.n - k - shown, "refinement": k, "expert": shown}
    compared = {origin: rows[origin] for origin in rows if getattr(objective, origin) == POLICY_GRADIENT}
    if sum(compared.values()) == 1:
        alone = next(origin for origin, number in compared.items() if number)
        problems.append(
            f"critique_grpo.loss.objective leaves one {alone} row a group to the policy gradient, which has nothing to "
            "be compared with, so its advantage is 0: give it the objective likelihood or none."
        )
    actor = config.actor_rollout_ref.actor
    terms = {"use_kl_loss": actor.use_kl_loss, "entropy_coeff": actor.entropy_coeff}
    left_out = [origin for origin, number in rows.items() if number and getattr(objective, origin) == NOTHING]
    if left_out and (on := [name for name, value in terms.items() if value]):
        problems.append(
            f"critique_grpo.loss.objective.{left_out[0]} is none, but actor_rollout_ref.actor.{on[0]} would train "
            "these rows all the same: switch it off, or give them another objective."
        )
    there = {"initial": True, "refinement": options.refines, "expert": options.expert.column is not None}
    if all(getattr(objective, origin) == NOTHING for origin, present in there.items() if present):
        present = " and ".join(origin for origin, one in there.items() if one)
        problems.append(
            f"critique_grpo.loss.objective leaves nothing to train: the objective of {present} rows, all that there "
            "are, is none. Switch refinements or demonstrations on (refinement.num, expert.column), or train these."
        )
    return problems


def clip_problems(config: DictConfig) -> list[str]:
    """verl's clip, which this recipe's loss does not read."""
    actor = config.actor_rollout_ref.actor
    verls = {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0}
    changed = [name for name, value in verls.items() if actor.get(name, value) != value]
    if actor.policy_loss.loss_mode != LOSS_MODE or not changed:
        return []
    return [
        f"actor_rollout_ref.actor.{changed[0]} is {actor[changed[0]]}, but policy_loss.loss_mode={LOSS_MODE} has a "
        "clip of its own: set critique_grpo.loss.clip_ratio_low and clip_ratio_high instead."
    ]


def advantage_problems(config: DictConfig, options: CritiqueGRPOConfig) -> list[str]:
    """Shapings of the advantage that would not be applied, or not to what they are made for."""
    problems = []
    actor, algorithm, objective = config.actor_rollout_ref.actor, config.algorithm, options.loss.objective
    if options.loss.shaping == CALIBRATED and options.refinement.generator == "endpoint":
        problems.append(
            "critique_grpo.loss.shaping=calibrated needs the log-probs that refinements were sampled with, which those "
            "of critique_grpo.refinement.generator=endpoint do not have: choose another shaping."
        )
    if options.loss.shaping == CALIBRATED and objective.refinement != POLICY_GRADIENT:
        problems.append(
            f"critique_grpo.loss.shaping=calibrated weighs a policy gradient, but loss.objective.refinement is "
            f"{objective.refinement}: set shaping=rational, which that objective does not use."
        )
    ema, loss_mode = options.advantage.ema_std_decay is not None, actor.policy_loss.loss_mode
    function = options.advantage.function is not None
    for name, on in (("function", function), ("ema_std_decay", ema), ("distil_coef", options.distils)):
        if on and loss_mode != LOSS_MODE:
            problems.append(
                f"critique_grpo.advantage.{name} is set, but with actor_rollout_ref.actor.policy_loss.loss_mode="
                f"{loss_mode} training is verl's own: set it to null, or loss_mode={LOSS_MODE}."
            )
    if options.distils and not objective.is_policy_gradient:
        problems.append(
            "critique_grpo.advantage.distil_coef adds to the advantages of a policy gradient: set it to 0, or all of "
            "critique_grpo.loss.objective to policy_gradient."
        )
    rollout = config.actor_rollout_ref.rollout
    longest = options.refinement.max_prompt_length + config.data.max_response_length
    fits = rollout.log_prob_max_token_len_per_gpu * sequence_parallel(actor) >= longest
    if options.distils and rollout.log_prob_use_dynamic_bsz and not fits:
        problems.append(
            f"critique_grpo.advantage.distil_coef: a response under its teacher's prompt may have {longest} tokens "
            "(refinement.max_prompt_length + data.max_response_length), but actor_rollout_ref.rollout."
            f"log_prob_max_token_len_per_gpu is {rollout.log_prob_max_token_len_per_gpu}: raise it, or lower those."
        )
    centred = algorithm.adv_estimator == "critique_grpo" and not algorithm.norm_adv_by_std_in_grpo
    if ema and not (centred and objective.is_policy_gradient):
        problems.append(
            "critique_grpo.advantage.ema_std_decay takes the place of the group's standard deviation: set "
            "algorithm.adv_estimator=critique_grpo, algorithm.norm_adv_by_std_in_grpo=false and all of "
            "critique_grpo.loss.objective to policy_gradient, or leave it at null."
        )
    return problems
