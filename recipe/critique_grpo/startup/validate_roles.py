"""Start-up check of rows that train the policy as critic or refiner."""

from omegaconf import DictConfig

from recipe.critique_grpo.critics import critic_types
from recipe.critique_grpo.options import CritiqueGRPOConfig


def role_problems(config: DictConfig, options: CritiqueGRPOConfig) -> list[str]:
    """Rows of roles that nothing would come of, or something other than what is meant."""
    problems, critic, refiner = [], options.roles.critic, options.roles.refiner
    if critic.class_decay is not None and not (critic.rows and options.refinement.trigger == "always"):
        problems.append(
            "critique_grpo.roles.critic.class_decay weighs critiques of right against those of wrong responses, but "
            "there are none of right ones: set roles.critic.rows and refinement.trigger=always, or class_decay=null."
        )
    if not options.roles.rows:
        return problems
    named = "critique_grpo.roles.critic.rows" if critic.rows else "critique_grpo.roles.refiner.rows"
    if config.algorithm.adv_estimator != "critique_grpo":
        problems.append(
            f"algorithm.adv_estimator is {config.algorithm.adv_estimator}, but advantages of {named} are those of "
            "adv_estimator=critique_grpo: set that."
        )
    if options.refinement.trigger == "never":
        problems.append(f"{named} needs groups that are refined, but critique_grpo.refinement.trigger is never.")
    if options.judges:
        problems.append(
            f"critique_grpo.reward.source=critique: the critic would decide about the reward of {named}, which train "
            "it or its refinements: set reward.source=rule."
        )
    if options.refinement.stop_after_correct:
        problems.append(
            "critique_grpo.refinement.stop_after_correct aborts refinements, so nobody would know what the critiques "
            f"were good for, or what refiners would have said, that {named} train: set it to false."
        )
    kind = critic_types().get(options.critique.type)
    if critic.rows and (kind is None or kind.asks != "policy"):
        problems.append(
            f"critique_grpo.roles.critic.rows trains the policy's own critiques, but those of critique.type="
            f"{options.critique.type} are not: set critique_grpo.critique.type=self."
        )
    longest = config.data.max_response_length
    if critic.rows and options.critique.max_tokens > longest:
        problems.append(
            f"critique_grpo.critique.max_tokens is {options.critique.max_tokens}, but a row of roles.critic has no "
            f"more than data.max_response_length ({longest}) tokens: lower the one or raise the other."
        )
    if critic.rows and critic.reward == "verdict" and options.critique.attempts > 1:
        problems.append(
            "critique_grpo.roles.critic.reward=verdict: a verdict that contradicts the rule is asked for again "
            f"(critique.attempts is {options.critique.attempts}), so hardly a wrong one would be trained on: set "
            "critique_grpo.critique.attempts=1."
        )
    if refiner.rows and options.refinement.generator == "endpoint":
        problems.append(
            "critique_grpo.roles.refiner.rows trains the policy's own refinements, but refinement.generator=endpoint "
            "lets another model write them: set refinement.generator=policy."
        )
    if refiner.rows and refiner.reward == "transition" and options.refinement.trigger != "always":
        problems.append(
            "critique_grpo.roles.refiner.reward=transition compares refinements of right and of wrong responses, but "
            f"refinement.trigger={options.refinement.trigger} refines wrong ones alone: set trigger=always, or "
            "reward=outcome."
        )
    return problems
