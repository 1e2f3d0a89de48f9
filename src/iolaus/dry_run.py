"""What a sweep would do: its space, its branches, and how long it may take."""

from collections.abc import Iterator

from hydra.types import HydraContext

from iolaus.plan import Plan, Planner


def dry_run(planner: Planner, plan: Plan, hydra_context: HydraContext) -> Iterator[str]:
    """Say in lines what a plan searches; each of its branches has been composed.

    Args:
        planner: Has made the plan.
        plan: What is to be searched.
        hydra_context: Of the command.
    """
    yield f"study {plan.study_name}: {plan.goals.n_trials} trials in {plan.folder}"
    yield from plan.space.tree()
    yield f"{len(planner.branches)} branches, one trial of each composed:"
    for branch in planner.branches:
        yield f"  {' '.join(branch)}"
