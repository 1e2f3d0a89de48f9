"""The claim protocol: exact under every interleaving, without the lock that workers of one host share."""

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from iolaus.study import queue as module
from iolaus.study import trials as trials_module
from iolaus.study.attributes import END, FAILED, FOLDER, GROWN, INTERRUPTED, LOST, RETRY_OF, STOPS, SURPLUS
from iolaus.study.queue import STOPPED, TOTAL, Goals, TrialQueue
from iolaus.study.storage import open_storage
from iolaus.study.tally import Tally
from iolaus.study.trials import MAX_LOSSES, losses

X, Y = FloatDistribution(0.0, 5.0), FloatDistribution(-1.0, 1.0)


class KilledError(BaseException):
    """A worker's process is gone."""


class Stepped:
    """A storage each of whose calls is a step of its worker, before which another may go on.

    Args:
        storage: The worker's own.
        step: Called before and after each call.
    """

    def __init__(self, storage: BaseStorage, step: Callable[[], None]) -> None:
        self.storage, self.step = storage, step

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.storage, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self.step()
            returned = attribute(*args, **kwargs)
            if name.startswith(("set_", "create_")):  # killed before it hears of what it has done
                self.step()
            return returned

        return call


@dataclass
class World:
    """Workers as threads of which one runs at a time, each on a host of its own, and a study that they share.

    Args:
        url: Of the storage.
        folder: Of the sweep.
        next_worker: Chooses among those that can go on.
    """

    url: str
    folder: Path
    next_worker: Callable[[Sequence[int]], int]
    alive: set[int] = field(default_factory=set)
    steps: Counter[int] = field(default_factory=Counter)
    kill_at: dict[int, int] = field(default_factory=dict)
    """Before which of its steps a worker is killed."""
    waiting: set[int] = field(default_factory=set)
    """Those that cannot go on before another has."""
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.here = threading.local()
        self.here.worker = -1
        self.turns: dict[int, threading.Semaphore] = {}
        self.back = threading.Semaphore(0)
        optuna.create_study(study_name="s", storage=open_storage(self.url), load_if_exists=True)

    def lease(self) -> dict[str, Any]:
        return {"host": "h", "pid": self.here.worker, "started": 0, "expires": 0.0}

    def holds(self, lease: dict[str, Any]) -> bool:
        return lease["pid"] in self.alive

    def search(self, n_trials: int, sampler: BaseSampler | None = None) -> TrialQueue:
        """A search in this very thread, as a later command has it."""
        sampler = sampler or optuna.samplers.RandomSampler(seed=0)
        study = optuna.load_study(study_name="s", storage=open_storage(self.url), sampler=sampler)
        return TrialQueue(study, Goals(n_trials, 1.0), 0, self.folder)

    def step(self) -> None:
        """Let whoever is next go on, and come back when it is this worker's turn again."""
        worker = self.here.worker
        if worker in self.kill_at and self.steps[worker] >= self.kill_at[worker]:
            raise KilledError  # what a clean-up would do; a process that is killed has none
        self.back.release()
        self.turns[worker].acquire()
        self.steps[worker] += 1
        if self.steps[worker] == self.kill_at.get(worker):
            self.alive.discard(worker)
            raise KilledError

    def wait(self) -> None:
        """What a worker does instead of sleeping."""
        assert self.here.worker >= 0, "nobody is at work for whom to wait"
        self.waiting.add(self.here.worker)
        self.step()

    def run(self, *workers: Callable[[TrialQueue], None], n_trials: int) -> None:
        """Run workers until each has ended or been killed."""
        first = len(self.turns)
        numbers = range(first, first + len(workers))
        for number in numbers:
            self.turns[number] = threading.Semaphore(0)
            self.alive.add(number)

        def live(number: int, work: Callable[[TrialQueue], None]) -> None:
            self.here.worker = number
            self.turns[number].acquire()
            try:
                search = self.search(n_trials)
                search.study._storage = Stepped(search.study._storage, self.step)  # type: ignore[assignment]
                work(search)
            except KilledError:
                pass  # it ends as kill -9 ends a process: without a word
            except BaseException as error:
                self.errors.append(error)
            finally:
                self.alive.discard(number)
                self.back.release()

        threads = [
            threading.Thread(target=live, args=(number, work), daemon=True)
            for number, work in zip(numbers, workers, strict=True)
        ]
        for thread in threads:
            thread.start()
        while able := [number for number in numbers if number in self.alive]:
            chosen = self.next_worker([number for number in able if number not in self.waiting] or able)
            self.waiting.clear()
            self.turns[chosen].release()
            self.back.acquire()
            assert self.steps.total() < 5000, "they wait for each other"
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def finish(self, n_trials: int) -> list[FrozenTrial]:
        """Go on alone, as the same command does later, and check that the study is as it must be."""
        before = self.search(1).study.get_trials()
        search = self.search(n_trials)
        self.here.worker = -1
        self.alive.add(-1)
        search.fail_lost_trials()
        work(search)
        return check(search, n_trials, before)


def work(search: TrialQueue, fails: Callable[[int], bool] = lambda number: False) -> None:
    """What a worker does."""
    while (trial := search.claim()) is not None:
        with contextlib.suppress(UpdateFinishedTrialError):  # it was given up meanwhile
            x = trial._suggest("x", X)
            trial._suggest("y", Y)
            trial.set_user_attr(FOLDER, str(trial.number))
            if fails(trial.number):
                search.fail(trial, FAILED, "it had to")
            else:
                search.tell(trial, [x])


def check(search: TrialQueue, n_trials: int, before: Sequence[FrozenTrial] = ()) -> list[FrozenTrial]:
    """What must hold of a study at its total."""
    trials = search.study.get_trials()
    tally = TrialQueue(search.study, Goals(n_trials, 1.0), 0, Path()).tally()
    assert tally.counted == n_trials
    assert not tally.pending
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    for number in tally.lost:
        takers = [t for t in trials if t.system_attrs.get(RETRY_OF) == number and t.system_attrs.get(END) != SURPLUS]
        assert len(takers) == 1
        if FOLDER in trials[number].user_attrs and FOLDER in takers[0].user_attrs:
            assert takers[0].params == trials[number].params
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            assert FOLDER in trial.user_attrs
    for old in before:
        if old.state.is_finished():
            assert trials[old.number] == old
    return trials


class NoLock:
    """What several hosts have that share no file system."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    worlds: list[World] = []
    monkeypatch.setattr(module, "FileLock", NoLock)
    for patched in (module, trials_module):
        clock = SimpleNamespace(sleep=lambda _: worlds[-1].wait(), time=lambda: 1e12)
        monkeypatch.setattr(patched, "time", clock)
        monkeypatch.setattr(patched, "lease", lambda: worlds[-1].lease())
    monkeypatch.setattr("os.fsync", lambda fd: None)  # nobody cuts the power here
    monkeypatch.setattr(trials_module, "holds", lambda lease: worlds[-1].holds(lease))

    def make(next_worker: Callable[[Sequence[int]], int], kind: str = "journal") -> World:
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        worlds.append(World(f"sqlite:///{folder}/s.db" if kind == "sqlite" else str(folder / "j"), folder, next_worker))
        return worlds[-1]

    return make


def first_then(switches: Sequence[int]) -> Callable[[Sequence[int]], int]:
    """Let the first worker run; after each of these numbers of steps let the next one go on."""
    taken = 0

    def choose(able: Sequence[int]) -> int:
        nonlocal taken
        taken += 1
        return able[sum(taken > switch for switch in switches) % len(able)]

    return choose


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_of_two_workers_that_claim_the_last_trial_exactly_one_gets_it_wherever_the_first_is_halted(
    world: Callable[..., World], kind: str
) -> None:
    surplus = 0
    for switch in range(1, 24, 1 if kind == "journal" else 5):
        here = world(first_then([switch, switch + 12]), kind)
        here.run(work, work, n_trials=1)
        trials = check(here.search(1), 1)
        surplus += sum(trial.system_attrs.get(END) == SURPLUS for trial in trials)
    assert kind == "sqlite" or surplus > 0  # the interleavings that matter were among them


@pytest.mark.parametrize(("kind", "seeds"), [("journal", 40), ("sqlite", 2)])
def test_random_interleavings_of_workers_that_are_killed_come_to_exactly_the_total(
    world: Callable[..., World], kind: str, seeds: int
) -> None:
    ends: Counter[str] = Counter()
    for seed in range(seeds):
        rng = random.Random(seed)
        here = world(rng.choice, kind)
        for worker in range(8):
            if rng.random() < 0.7:
                here.kill_at[worker] = rng.randrange(1, 60)
        here.run(*[partial(work, fails=lambda number: number % 5 == 4)] * 4, n_trials=5)
        here.run(*[work] * 4, n_trials=7)
        trials = here.finish(7)
        ends.update(str(trial.system_attrs.get(END)) for trial in trials)
    assert {LOST, FAILED} <= ends.keys()
    assert kind == "sqlite" or SURPLUS in ends


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_worker_that_is_killed_at_any_step_leaves_nothing_that_the_next_one_cannot_mend(
    world: Callable[..., World], kind: str
) -> None:
    killed = 0
    for step in range(1, 60, 1 if kind == "journal" else 7):
        here = world(first_then([]), kind)
        here.kill_at = {0: step}
        here.run(work, n_trials=2)
        killed += here.steps[0] == step
        here.finish(2)
    assert killed >= (30 if kind == "journal" else 5)


def test_a_worker_that_is_killed_at_any_step_while_others_claim_leaves_an_exact_total(
    world: Callable[..., World],
) -> None:
    lost = 0
    for step in range(1, 30):
        for switch in (step + 3, step + 7):
            here = world(first_then([step, switch]))
            here.kill_at = {0: step + 1}
            here.run(work, work, work, n_trials=2)
            trials = here.finish(2)
            lost += any(trial.system_attrs.get(END) == LOST for trial in trials)
    assert lost > 10  # the kills struck trials, and not only workers that had none


def test_trials_that_a_user_has_enqueued_are_run_once_each_and_first(world: Callable[..., World]) -> None:
    for seed in range(25):
        rng = random.Random(seed)
        here = world(rng.choice)
        here.kill_at = {0: rng.randrange(1, 40), 1: rng.randrange(1, 60)}
        study = here.search(1).study
        for x in (1.0, 2.0, 3.0):
            study.enqueue_trial({"x": x})
        here.run(work, work, work, n_trials=5)
        trials = here.finish(5)
        completed = [trial.params["x"] for trial in trials if trial.state == TrialState.COMPLETE]
        assert [completed.count(x) for x in (1.0, 2.0, 3.0)] == [1, 1, 1]


def test_a_trial_that_is_enqueued_while_workers_claim_neither_adds_to_the_total_nor_gets_lost(
    world: Callable[..., World],
) -> None:
    for seed in range(25):
        rng = random.Random(seed)
        here = world(rng.choice)
        here.run(work, work, lambda search: search.study.enqueue_trial({"x": 1.0}), n_trials=2)
        check(here.search(2), 2)
        here.run(work, work, n_trials=4)
        trials = here.finish(4)
        assert [trial.params["x"] for trial in trials if trial.state == TrialState.COMPLETE].count(1.0) == 1


def test_more_enqueued_trials_than_the_total_wait_until_it_grows(world: Callable[..., World]) -> None:
    here = world(first_then([]))
    for x in (1.0, 2.0, 3.0):
        here.search(1).study.enqueue_trial({"x": x})
    assert [trial.state.name for trial in here.finish(2)] == ["COMPLETE", "COMPLETE", "WAITING"]
    assert [trial.params["x"] for trial in here.finish(3)] == [1.0, 2.0, 3.0]


def test_the_third_loss_of_the_same_parameters_counts_wherever_it_strikes(world: Callable[..., World]) -> None:
    for step in (15, 16, 17):  # after all parameters are chosen
        here = world(first_then([]))
        here.kill_at = dict.fromkeys(range(MAX_LOSSES), step)
        for _ in range(MAX_LOSSES):
            here.run(work, n_trials=1)
        trials = here.finish(1)
        assert [trial.system_attrs[END] for trial in trials] == [LOST] * MAX_LOSSES
        assert [losses(trial) for trial in trials] == [1, 2, 3]
        assert len({trial.params["x"] for trial in trials if trial.params}) == 1


def test_racing_retries_that_are_lost_for_the_third_time_do_not_count_twice(world: Callable[..., World]) -> None:
    third = raced = 0
    for first in range(1, 20):
        for second in range(1, 20, 6):
            here = world(first_then([first, first + second]))
            here.kill_at = dict.fromkeys(range(MAX_LOSSES - 1), 17)
            for _ in range(MAX_LOSSES - 1):
                here.run(work, n_trials=1)
            here.next_worker = first_then([first, first + second])
            here.kill_at |= {2: first + 5, 3: second + 5}
            here.run(work, work, n_trials=1)
            trials = here.finish(1)
            counted = [t for t in trials if t.state == TrialState.COMPLETE or losses(t) == MAX_LOSSES]
            assert len(counted) == 1
            third += losses(counted[0]) == MAX_LOSSES
            raced += any(trial.system_attrs.get(END) == SURPLUS for trial in trials)
    assert third > 0
    assert raced > 0


def test_interrupted_trials_are_tried_again_and_never_count(world: Callable[..., World]) -> None:
    here = world(first_then([]))

    def interrupted(search: TrialQueue) -> None:
        trial = search.claim()
        assert trial is not None
        trial._suggest("x", X)
        trial._suggest("y", Y)
        trial.set_user_attr(FOLDER, str(trial.number))
        search.fail(trial, INTERRUPTED, "interrupted")

    for _ in range(5):
        here.run(interrupted, n_trials=1)
    trials = here.finish(1)
    assert [trial.state.name for trial in trials] == ["FAIL"] * 5 + ["COMPLETE"]
    assert len({trial.params["x"] for trial in trials}) == 1


def test_a_trial_that_was_given_up_wrongly_is_told_nothing(world: Callable[..., World]) -> None:
    here = world(first_then([]))

    def slow(search: TrialQueue) -> None:
        trial = search.claim()
        assert trial is not None
        here.alive.discard(0)  # its lease has expired, as others see it
        assert here.search(1).fail_lost_trials() == [trial.number]
        here.alive.add(0)
        assert not search.tell(trial, [1.0])
        assert not search.fail(trial, FAILED, "too late")

    here.run(slow, n_trials=1)
    assert [trial.state.name for trial in here.finish(1)] == ["FAIL", "COMPLETE"]


def test_a_trial_is_given_up_at_any_step_of_its_claim_without_harm(world: Callable[..., World]) -> None:
    given_up = 0
    for step in range(1, 12):
        here = world(first_then([]))

        def others(able: Sequence[int], here: World = here, step: int = step) -> int:
            if here.steps[0] == step:
                here.alive.discard(0)
                here.search(2).fail_lost_trials()
                here.alive.add(0)
            return able[0]

        here.next_worker = others
        here.run(work, n_trials=2)
        here.alive.discard(0)
        trials = here.finish(2)
        given_up += any(trial.state == TrialState.FAIL for trial in trials)
    assert given_up > 3


def test_a_lowered_total_is_over_at_once_and_a_grown_one_goes_on(world: Callable[..., World]) -> None:
    here = world(first_then([]))
    here.finish(5)
    assert here.search(3).claim() is None
    assert len(here.finish(6)) == 6


def test_a_request_to_stop_ends_a_command_and_not_the_next(world: Callable[..., World]) -> None:
    here = world(first_then([]))
    here.alive.add(-1)
    search = here.search(20)

    def stops_at_the_third(number: int) -> bool:
        if number == 2:
            search.study.set_user_attr(STOPS, 1)
        return False

    work(search, stops_at_the_third)
    assert search.ended_by(search.tally()) == STOPPED
    assert search.tally().counted == 3
    later = here.search(5)
    later.goals = Goals(5, 1.0, stops=1)
    work(later)
    assert later.tally().counted == 5


def test_a_total_that_is_raised_while_workers_are_at_work_is_the_new_total(world: Callable[..., World]) -> None:
    here = world(first_then([]))
    here.alive.add(-1)
    search = here.search(3)

    def raised_in_the_last(number: int) -> bool:
        if number == 2:
            search.study.set_user_attr(GROWN, 6)
        return False

    work(search, raised_in_the_last)
    assert search.ended_by(search.tally()) == TOTAL
    assert here.search(3).tally().counted == 6


def test_patience_counts_what_ended_after_the_best_and_not_what_began_after_it() -> None:
    study = optuna.create_study(direction="minimize")
    slow, *quick = (study.ask() for _ in range(4))
    for trial in quick:
        study.tell(trial, 1.0)
    study.tell(slow, 0.5)  # the first to begin, the last to end, and the best
    assert Tally.of(study, study.trials).since_best == 0
    first_tie, last_tie = study.ask(), study.ask()
    study.tell(last_tie, 2.0)
    assert Tally.of(study, study.trials).since_best == 1
    study.tell(first_tie, 0.5)  # as good, and no better
    assert Tally.of(study, study.trials).since_best == 2


def test_too_many_failures_end_the_search_before_its_total(world: Callable[..., World]) -> None:
    here = world(first_then([]))
    search = here.search(20)
    search.goals = Goals(20, max_failure_rate=0.5)
    here.alive.add(-1)
    work(search, lambda number: True)
    tally = search.tally()
    assert (tally.counted, tally.failed) == (5, 5)
    assert tally.reasons == {"it had to": 5}


def test_workers_never_propose_the_same_point(world: Callable[..., World]) -> None:
    here = world(random.Random(0).choice)
    here.run(*[work] * 8, n_trials=40)
    drawn = [trial.params[name] for trial in check(here.search(40), 40) for name in trial.params]
    assert len(set(drawn)) == len(drawn) == 80


SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "tpe": lambda: optuna.samplers.TPESampler(seed=0, n_startup_trials=4),
    "nsgaii": lambda: optuna.samplers.NSGAIISampler(seed=0, population_size=4),
}


def sequence(trials: Sequence[FrozenTrial]) -> list[Any]:
    return [(trial.params, trial.values) for trial in trials if trial.state == TrialState.COMPLETE]


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_interrupted_search_of_one_worker_is_the_same_as_an_uninterrupted_one(
    world: Callable[..., World], name: str
) -> None:
    def interrupted_at(step: int | None) -> list[Any]:
        here = world(first_then([]))
        here.here.worker = 0
        here.turns[0] = threading.Semaphore(0)
        sampler = SAMPLERS[name]()
        search = here.search(12, sampler)
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                raise KilledError

        search.study._storage = Stepped(search.study._storage, count)  # type: ignore[assignment]
        here.alive.add(0)
        with contextlib.suppress(KilledError):
            work(search)
        here.alive.discard(0)
        here.here.worker = -1
        here.alive.add(-1)
        search = here.search(12, SAMPLERS[name]())
        search.fail_lost_trials()
        work(search)
        return sequence(check(search, 12))

    whole = interrupted_at(None)
    assert len(whole) == 12
    for step in range(100, 150, 7):
        assert interrupted_at(step) == whole


def test_a_grid_goes_through_each_of_its_points_once_whatever_is_lost(world: Callable[..., World]) -> None:
    points = {"x": ["a", "b", "c"], "y": [1.0, 2.0]}
    for step in range(3, 40):
        here = world(first_then([]))

        def go(search: TrialQueue) -> None:
            while (trial := search.claim()) is not None:
                trial._suggest("x", CategoricalDistribution(["a", "b", "c"]))
                trial._suggest("y", FloatDistribution(1.0, 2.0))
                search.tell(trial, [0.0])

        class Grid(World):
            def search(self, n_trials: int, sampler: BaseSampler | None = None) -> TrialQueue:
                return World.search(self, n_trials, sampler or optuna.samplers.GridSampler(points, seed=0))

        here.__class__ = Grid
        here.kill_at = {0: step}
        here.run(go, n_trials=6)
        here.alive.add(-1)
        search = here.search(6)
        go(search)
        done = [tuple(t.params.values()) for t in search.study.get_trials() if t.state == TrialState.COMPLETE]
        assert sorted(done) == [(x, y) for x in "abc" for y in (1.0, 2.0)]
