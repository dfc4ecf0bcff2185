"""Runs that are killed again and again, and must train as if nothing had happened.

    python -m tests.campaigns.kills --kills 100

starts `vdsgen launch --restarts` on tiny models, kills ranks, launchers and whole hosts at moments drawn from
a seed (about half of them aimed at checkpoints as they are written), stops ranks with SIGSTOP, and compares
every step's loss, gradient norm and learning rate, to the last bit, with a run of the same plan that nobody
disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns import figures
from tests.campaigns.launched import Launched, held_out_losses, is_gone, losses, parent_of
from tests.forks.start import free_port
from tests.launch.backends.sshd import HOSTS, running_sshd
from tests.model.training import render_tiny, write_clips
from vdsgen.launch.commands import LAUNCH_ID
from vdsgen.spec.run import STOP_REQUEST
from vdsgen.spec.training import Ema, Saving, Validation

SAVE_EVERY = 15
UNFINISHED = -1
"""Stands for the exit code of a run that did not go on after a kill."""
HANG_SECONDS = 6.0
"""Asked of the launcher: far more than a step takes here, on a busy machine too."""
MOMENTS = {"save": 50, "step": 30, "start": 20}
SIGNALS = {"SIGKILL": 70, "SIGTERM": 10, "SIGSEGV": 10, "SIGABRT": 10}
VICTIMS = {"rank": 76, "launcher": 12, "all at once": 12}
ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class Leg:
    """One run that is killed."""

    name: str
    launcher: str
    share: int
    """Of the kills."""
    stops: int
    """Ranks stopped with SIGSTOP."""
    plan: dict[str, Any]
    forks: bool = True
    training: dict[str, Any] = field(default_factory=dict)
    victims: dict[str, int] = field(default_factory=lambda: VICTIMS)


LEGS = (
    Leg(
        "2 pipeline x 1 data, ZeRO-1, fp32, averaged weights, held-out losses",
        "deepspeed",
        30,
        3,
        {"pipeline": 2, "data": 1},
        training={"ema": Ema(), "held_out": True},
    ),
    Leg(
        "1 pipeline x 2 data, ZeRO-2, bf16",
        "deepspeed",
        20,
        2,
        {"pipeline": 1, "data": 2, "zero_stage": 2, "dtype": "bf16"},
    ),
    Leg("1 pipeline x 2 data, ZeRO-3, fp32", "torchrun", 20, 2, {"pipeline": 1, "data": 2, "zero_stage": 3}),
    Leg(
        "2 pipeline x 2 data, ZeRO-1, fp32, saves in the background",
        "deepspeed",
        16,
        2,
        {"pipeline": 2, "data": 2},
        training={"saving": Saving(every_steps=SAVE_EVERY, keep=2, asynchronous=True)},
    ),
    Leg("2 pipeline x 1 data, ZeRO-1, fp32", "deepspeed", 6, 1, {"pipeline": 2, "data": 1}, forks=False),
    Leg(
        "2 hosts, 1 rank each, ZeRO-1, fp32",
        "ssh",
        8,
        2,
        {"pipeline": 2, "data": 1},
        forks=False,
        victims={"rank": 40, "host": 40, "launcher": 20},
    ),
)


@dataclass(slots=True)
class Kill:
    """What was done, and what came of it."""

    moment: str
    victim: str
    signal: str
    step: int
    """The last one made before."""
    saved: int
    """Step of the last complete checkpoint before."""
    saving: bool
    """A checkpoint was half written."""
    gone_seconds: float = 0.0
    """Until no process of the start was left."""
    step_seconds: float | None = None
    """Until the first new step; None where the next kill came before."""
    from_step: int | None = None
    """Where the next start that trained went on."""

    @property
    def lost_steps(self) -> int:
        return 0 if self.from_step is None else max(0, self.step - self.from_step)

    @property
    def lost_too_many(self) -> bool:
        return self.from_step is not None and self.from_step < self.saved


@dataclass(slots=True)
class Stop:
    """A rank that was stopped, and whether that was said."""

    named: bool
    seconds: float


class Killer:
    """Kills one run, until it has done so often enough."""

    def __init__(self, leg: Leg, launched: Launched, draws: random.Random, log: Path) -> None:
        self.leg, self.launched, self.draws, self.log = leg, launched, draws, log
        self.kills: list[Kill] = []
        self.stops: list[Stop] = []
        self._save_seconds = 0.2

    def run(self, kills: int, stops: int) -> None:
        order = ["kill"] * kills + ["stop"] * stops
        self.draws.shuffle(order)
        self._await_new_step(0)
        for number, what in enumerate(order, 1):
            if what == "kill":
                self._kill()
            else:
                self._stop()
            self._note(f"{number}/{len(order)} {self.kills[-1] if what == 'kill' else self.stops[-1]}")
        self._settle()

    def _kill(self) -> None:
        moment = self._chosen(MOMENTS)
        # Three failures alike at one step and the launcher gives up, as it should: a start is killed once.
        if moment == "start" and (not self.kills or self.kills[-1].moment == "start" or self._is_settled):
            moment = "step"
        if moment == "start":
            self._wait_for(moment)
            victims, victim, name = self._victims()
        else:
            self._settle()
            victims, victim, name = self._victims()
            self._wait_for(moment)
        kill = Kill(
            moment, victim, name, self.launched.step(), self.launched.saved(), self.launched.is_saving()
        )
        self._metrics = self.launched.metrics()[0]
        self._killed_at = time.monotonic()
        for pid in victims:
            send(pid, getattr(signal, name))
        before = set(self.launched.processes())
        gone = self.launched.wait_for("end of all processes", lambda: all(map(is_gone, before)), 90)
        kill.gone_seconds = gone - self._killed_at
        kill.step = max(kill.step, self.launched.step())
        self.kills.append(kill)

    @property
    def _is_settled(self) -> bool:
        return not self.kills or self.kills[-1].from_step is not None

    def _settle(self) -> None:
        """Until the run has made a step again after the last kill."""
        if self._is_settled:
            return
        first = next(kill for kill in self.kills if kill.from_step is None)
        self._await_new_step(self._metrics)
        self.kills[-1].step_seconds = time.monotonic() - self._killed_at
        from_step = self.launched.starts()[-1]["from_step"]
        for kill in self.kills[self.kills.index(first) :]:
            kill.from_step = from_step

    def _await_new_step(self, old_file: int) -> None:
        launched = self.launched
        launched.wait_for("new start", lambda: launched.metrics()[0] not in (0, old_file))
        launched.wait_for("new step", lambda: launched.step() > int(launched.starts()[-1]["from_step"]))

    def _wait_for(self, moment: str) -> None:
        launched = self.launched
        if moment == "start":
            launched.wait_for("new ranks", lambda: bool(launched.ranks()))
            time.sleep(self.draws.uniform(0, 3.0 if self.leg.forks else 15.0))
        elif moment == "step":
            time.sleep(self.draws.uniform(0, 1.5))
        else:
            launched.wait_for("checkpoint", launched.is_saving)
            began = time.monotonic()
            if self.draws.random() < 0.2:  # look how long one takes, and take the next
                self._save_seconds = launched.wait_for("end of it", lambda: not launched.is_saving()) - began
                launched.wait_for("checkpoint", launched.is_saving)
            time.sleep(self.draws.uniform(0, 1.1 * self._save_seconds))

    def _victims(self) -> tuple[list[int], str, str]:
        """Processes, what they are, and the signal."""
        victim = self._chosen(self.leg.victims)
        launched = self.launched
        launched.wait_for("ranks", lambda: bool(launched.ranks()))
        ranks, found = launched.ranks(), launched.processes()
        if victim == "host":
            return of_host(found, self.draws.randrange(len(HOSTS))), victim, "SIGKILL"
        if victim == "launcher":
            others = [pid for pid, environment in found.items() if "RANK" not in environment]
            if others:
                return [self.draws.choice(sorted(others))], victim, "SIGKILL"
        if victim == "all at once":
            return sorted(found), victim, "SIGKILL"
        rank = self.draws.choice(sorted(ranks))
        return [ranks[rank]], "rank", self._chosen(SIGNALS)

    def _stop(self) -> None:
        self._settle()
        launched = self.launched
        self._wait_for(self.draws.choice(["save", "step"]))
        launched.wait_for("ranks", lambda: len(launched.ranks()) > 1)
        rank, pid = self.draws.choice(sorted(launched.ranks().items()))
        self._metrics, begins = launched.metrics()[0], len(launched.shown())
        self._killed_at = time.monotonic()
        send(pid, signal.SIGSTOP)
        said = launched.wait_for("hang", lambda: "Restart " in launched.shown()[begins:], 90)
        text = launched.shown()[begins:]
        named = f"rank {rank} (process {pid} on " in text and "stopped by a signal (SIGSTOP" in text
        self.stops.append(Stop(named, said - self._killed_at))
        if not named:
            self._note(f"rank {rank}, process {pid}, was not named:\n{text}")
        self._await_new_step(self._metrics)

    def _chosen(self, weights: dict[str, int]) -> str:
        return self.draws.choices(list(weights), list(weights.values()))[0]

    def _note(self, text: str) -> None:
        with self.log.open("a") as stream:
            stream.write(f"{time.strftime('%H:%M:%S')} {self.leg.name} ({self.leg.launcher}): {text}\n")


def of_host(found: dict[int, dict[str, str]], node: int) -> list[int]:
    """Everything that runs on one of HOSTS, its end of the connection included."""
    there = [pid for pid, variables in found.items() if variables.get(LAUNCH_ID, "").endswith(f".{node}")]
    parents = {parent_of(pid) for pid in there} - set(there)
    sshd = [pid for pid in parents if Path(f"/proc/{pid}/comm").read_text().startswith("sshd")]
    return [*sshd, *there]


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def render(leg: Leg, folder: Path) -> None:
    """Clips and the plan. Rendering limits its process's memory for a moment: nothing may be started then."""
    write_clips(folder / "clips")
    training = {"steps": 1_000_000, "saving": Saving(every_steps=SAVE_EVERY, keep=2), **leg.training}
    clips = folder / "clips"
    if training.pop("held_out", False):
        training["validation"] = Validation(every_steps=40, videos=str(clips), clips=2, quantiles=(0.5,))
    # Loader processes would import torch again with every start, which forks need not.
    data = {"workers": 0} if leg.forks else {}
    render_tiny(folder / "plan", clips, training=training, data_changes=data, **leg.plan)


def run_leg(leg: Leg, kills: int, stops: int, seed: int, folder: Path, log: Path) -> dict[str, Any]:
    """In a folder that `render` has filled."""
    plan = folder / "plan"
    environment = {"DS_ACCELERATOR": "cpu", "PYTHONPATH": ROOT}
    with ExitStack() as stack:
        if leg.launcher == "ssh":
            path = stack.enter_context(running_sshd(folder / "ssh"))
            (plan / "hostfile").write_text("".join(f"{host} slots=1\n" for host in HOSTS))
            environment["PATH"] = f"{path}:{os.environ['PATH']}"
            environment["MASTER_PORT"] = str(free_port())
        options = ("--launcher", leg.launcher, "--restarts", "100000", "--hang-seconds", str(HANG_SECONDS))
        launched = Launched(plan, folder / "run", options, leg.forks, environment)
        stack.callback(launched.kill)
        killer = Killer(leg, launched, random.Random(seed), log)
        try:
            killer.run(kills, stops)
            (launched.run / STOP_REQUEST).touch()
            code = launched.finish()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            print(f"{leg.name}: {error}", flush=True)
            code = UNFINISHED
            launched.kill()
    shown = launched.shown()
    (plan / "hostfile").write_text("")
    calm = Launched(plan, folder / "calm", ("--steps", str(len(losses(launched.run)))), True)
    calm_code = calm.finish(1800)
    equal = losses(launched.run) == losses(calm.run)
    equal = equal and held_out_losses(launched.run) == held_out_losses(calm.run)
    if code or calm_code or not equal:
        kept = Path(tempfile.mkdtemp(prefix="kills-lost-"))
        shutil.copytree(folder, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints", "ssh"))
        print(f"{leg.name}: kept in {kept}", flush=True)
    return figures_of(leg, killer, code, equal=equal, steps=len(losses(launched.run)), shown=shown)


def figures_of(leg: Leg, killer: Killer, code: int, *, equal: bool, steps: int, shown: str) -> dict[str, Any]:
    kills, stops = killer.kills, killer.stops
    return {
        "name": leg.name,
        "launcher": leg.launcher,
        "processes": "forked from one that has imported torch" if leg.forks else "started",
        "kills": len(kills),
        "while_saving": sum(kill.saving for kill in kills),
        "moments": Counter(kill.moment for kill in kills),
        "victims": Counter(f"{kill.victim} {kill.signal}" for kill in kills),
        "steps": steps,
        "exit_code": code,
        "equal": equal,
        "lost_more_than_since_save": sum(kill.lost_too_many for kill in kills),
        "lost_steps": [kill.lost_steps for kill in kills],
        "gone_seconds": [round(kill.gone_seconds, 2) for kill in kills],
        "step_seconds": [round(kill.step_seconds, 2) for kill in kills if kill.step_seconds is not None],
        "stopped": len(stops),
        "named": sum(stop.named for stop in stops),
        "named_seconds": [round(stop.seconds, 2) for stop in stops],
        "false_hangs": shown.count("the run hangs") - len(stops),
    }


def campaign(
    kills: int, stops: int, seed: int, log: Path, legs: Sequence[Leg] = LEGS, at_once: int = 1
) -> dict[str, Any]:
    """Kills are shared out over the legs; `at_once` of them run side by side."""
    shares = shared(kills, [leg.share for leg in legs])
    stopped = shared(stops, [leg.stops for leg in legs])

    def one(number: int) -> dict[str, Any]:
        done = run_leg(legs[number], shares[number], stopped[number], seed + number, folders[number], log)
        print(one_line(done), flush=True)
        return done

    with ExitStack() as stack:
        folders = [stack.enter_context(folder_of_a_leg()) for _ in legs]
        for leg, folder in zip(legs, folders, strict=True):
            render(leg, folder)
        with ThreadPoolExecutor(at_once) as pool:
            done = list(pool.map(one, range(len(legs))))
    return {"seed": seed, "save_every_steps": SAVE_EVERY, "hang_seconds": HANG_SECONDS, "legs": done}


@contextmanager
def folder_of_a_leg() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def shared(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `total`, as the weights are to each other."""
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    # What is left goes to the largest remainders.
    left = sorted(range(len(weights)), key=lambda index: -(total * weights[index] % whole))
    for index in left[: total - sum(parts)]:
        parts[index] += 1
    return parts


def lost(found: dict[str, Any]) -> list[str]:
    """What did not go as it must."""
    faults = []
    for leg in found["legs"]:
        where = f"{leg['name']} ({leg['launcher']})"
        if leg["exit_code"] or not leg["equal"]:
            faults.append(f"{where}: another sequence of losses, or exit code {leg['exit_code']}")
        if leg["lost_more_than_since_save"]:
            faults.append(f"{where}: a kill lost more than the steps since the last save")
        if leg["named"] != leg["stopped"] or leg["false_hangs"]:
            faults.append(
                f"{where}: {leg['named']} of {leg['stopped']} hangs named, {leg['false_hangs']} false"
            )
    return faults


def one_line(leg: dict[str, Any]) -> str:
    equal = "equal" if leg["equal"] else "NOT EQUAL"
    return (
        f"{leg['name']}, {leg['launcher']}: {leg['kills']} kills ({leg['while_saving']} in saves), "
        f"{leg['steps']} steps {equal}, at most {max(leg['lost_steps'], default=0)} steps lost, "
        f"{leg['named']} of {leg['stopped']} stops named"
    )


def middle_and_most(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} / {max(values):.1f}" if values else ""


def section(found: dict[str, Any]) -> str:
    legs = found["legs"]
    kills, saving, stopped, named, equal, more = (
        sum(leg[key] for leg in legs)
        for key in ("kills", "while_saving", "stopped", "named", "equal", "lost_more_than_since_save")
    )
    victims = sum((Counter(leg["victims"]) for leg in legs), Counter())
    what = ", ".join(f"{count} x {name}" for name, count in victims.most_common())
    seconds = middle_and_most([value for leg in legs for value in leg["named_seconds"]])
    return f"""## Ranks, launchers and hosts killed

{kills} kills of runs under `vdsgen launch --restarts`, {saving} of them while a checkpoint was half written
({what}).
{equal} of {len(legs)} runs came to the losses, gradient norms and learning rates of a run that nobody
disturbed, to the last bit; {more} kills lost more than the steps since the last save (one every
{found["save_every_steps"]} steps).

Of {stopped} ranks stopped with SIGSTOP {named} were named, with process and state; the restart was announced
{seconds} s (median / most) after the stop, with `--hang-seconds {found["hang_seconds"]:g}`.

| plan | launcher | kills (in saves) | steps | same losses | lost at most | nothing ran | a new step |
|---|---|---|---|---|---|---|---|
{_rows(legs)}

The last two columns are seconds from the signal on, medians and maxima. \\* Python processes are forks of
one that has imported torch and DeepSpeed, so that a start takes seconds less; runner, launcher and ranks are
otherwise the real ones.
"""


def _rows(legs: Sequence[dict[str, Any]]) -> str:
    rows = []
    for leg in legs:
        cells = (
            leg["name"],
            leg["launcher"] + ("" if leg["processes"] == "started" else " *"),
            f"{leg['kills']} ({leg['while_saving']})",
            str(leg["steps"]),
            "yes" if leg["equal"] else "NO",
            str(max(leg["lost_steps"], default=0)),
            middle_and_most(leg["gone_seconds"]),
            middle_and_most(leg["step_seconds"]),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def replace_in(before: dict[str, Any], legs: Sequence[dict[str, Any]]) -> None:
    """Legs that were run again stand in for what was measured of them before."""
    again = {(leg["name"], leg["launcher"]): leg for leg in legs}
    found = before["figures"]
    found["legs"] = [again.get((leg["name"], leg["launcher"]), leg) for leg in found["legs"]]
    figures.write("kills", before["command"], found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--leg", type=int, action="append", help="only these, from 0, into the figures of the others"
    )
    parser.add_argument("--at-once", type=int, default=1, help="so many legs side by side")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "kills.log")
    given = parser.parse_args(arguments)
    legs = LEGS if given.leg is None else [LEGS[number] for number in given.leg]
    found = campaign(given.kills, given.stops, given.seed, given.log, legs, given.at_once)
    if given.leg is not None:
        replace_in(figures.read("kills"), found["legs"])
    else:
        command = f"python -m tests.campaigns.kills --kills {given.kills} --at-once {given.at_once}"
        figures.write("kills", command, found)
    faults = lost(found)
    print("\n".join(faults) if faults else section(found))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
