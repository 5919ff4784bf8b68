"""Random command lines, settings, folders and files: what people mistype, and what disks and editors do to files."""

import contextlib
import io
import json
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from metadisco import cli
from metadisco.checkpoints.checkpoint import ZOO, zoo_names
from metadisco.commands import settings
from metadisco.core.files import CheckpointError, hash_document, hash_file
from metadisco.curricula import buffer as level_buffer
from metadisco.curricula import level_files
from metadisco.presets import registry
from metadisco.runs import run_folder
from metadisco.runs.compiled_steps import first_key
from metadisco.runs.train_state import Checkpoints

LONGEST_SECONDS = 30.0
QUICK_PRESETS = ("smoke", "quickstart", "ta-lpg-grid", "scheduled-a2c")
PRESETS = (*QUICK_PRESETS, "groove-grid", "lpo-quick")  # these take seconds to trace, and to import
WORDS = [
    *(
        "",
        " ",
        "-",
        "--",
        "=",
        "0",
        "1",
        "2",
        "-1",
        "7",
        "1e6",
        "1e30",
        "-1e30",
        "1e-300",
        "nan",
        "inf",
        "-inf",
        "none",
    ),
    *("true", "false", "None", "()", "(,)", "1,2", "1,,2", "[1,2", "{}", "{'a': 1}", "0x10", "1_000", "1.5", "½", "٣"),
    *(
        "99999999999",
        "9" * 400,
        "9" * 5000,
        "2147483648",
        "4294967296",
        "-2147483649",
        "x" * 3000,
        "ä😀",
        "\x00",
        "\n",
        "a b",
    ),
    *("metadisco.objectives.lpg:LPG", "metadisco.objectives.actor_critic:A2C", "metadisco.agents.networks:Table"),
    *(
        "metadisco.agents.networks:MLP",
        "metadisco.curricula.paired:PAIRED",
        "metadisco.meta_training.level_scores:MaxMC",
    ),
    *(
        "os:system",
        "os.path:join",
        "metadisco:load",
        "metadisco.nowhere:X",
        ":",
        "a:b",
        "..:x",
        "sys:exit",
        "json:JSONDecoder",
    ),
    *(
        "../..",
        "/",
        ".",
        "/dev/null",
        "/proc/self/mem",
        "~",
        "*",
        "%s",
        "{0}",
        "$HOME",
        "[bold]x[/bold]",
        "[/]",
        "grid-tiny",
    ),
]
SUITES = [
    *("grid-tiny", "grid-unseen", "mazes", "classic", "CartPole-v1", "horizons:grid-tiny", "atari", "brax-reacher"),
    *(
        "grid-tiny@8",
        "grid-tiny@x4",
        "grid-tiny@x1/4",
        "horizons:grid-tiny@1",
        "grid-tiny@",
        "@",
        "horizons:",
        "grid-tiny@x0",
    ),
    *(
        "grid-tiny@x1/0",
        "grid-tiny@x1e99999999",
        "grid-tiny@99999999999999999999",
        "grid-tiny@-1",
        "grid-tiny@0.5",
        "grid-tiny@x",
    ),
]
OPTIONS = {
    "discover": [
        *("--out", "--seed", "--minutes", "--env-steps", "--resume", "--from", "--sweep", "--seeds", "--other-code"),
        *("--wandb", "--settings", "--allow", "--num_steps", "--num_tasks", "--inner.objective", "--sigma", "--x.y.z"),
        *("--coordinator", "--process-id", "--join-seconds"),
    ],
    "evaluate": ["--suite", "--seeds", "--seed", "--levels", "--against", "--json", "--out", "--overwrite", "--allow"],
    "inspect": ["--scores", "--allow", "--nothing"],
    "report": ["--allow", "--out"],
    "list": ["presets", "suites", "objectives", "checkpoints", "settings", "smoke", "--help", "nothing"],
}


class ReachedError(Exception):
    """The command would compute now: what it was given is right."""


def stop(*_: Any, **__: Any) -> None:
    """In place of what computes."""
    raise ReachedError


@dataclass(frozen=True)
class Case:
    """One thing to try: what is called, and how it is told of where it fails."""

    name: str
    call: Callable[[], int]


def command(arguments: list[str]) -> Case:
    """A command line."""
    return Case(repr(arguments), lambda: cli.main(arguments))


def check(case: Case) -> str:
    """What is wrong with the answer to a case; empty where nothing is."""
    said, begun = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = case.call()
        except ReachedError:
            code = 0
        except SystemExit as left:
            code = left.code
        except BaseException:
            return f"{case.name}: {traceback.format_exc()[-1500:]}"
    text, seconds = said.getvalue(), time.monotonic() - begun
    if code not in (0, 2):
        return f"{case.name}: exit code {code}: {text[-500:]}"
    if "Traceback" in text:
        return f"{case.name}: {text[-1500:]}"
    if code == 2 and len(text.strip()) < 10:
        return f"{case.name}: refused without a sentence: {text!r}"
    return f"{case.name}: took {seconds:.0f} s" if seconds > LONGEST_SECONDS else ""


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder, for finding out whether one was changed."""
    return {str(path): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


class Cases:
    """Makes random cases in a folder of its own, in which the process must be."""

    def __init__(self, home: Path, seed: int, presets: Sequence[str] = PRESETS) -> None:
        self.home, self.rng = home, random.Random(seed)
        self.paths = {name: settings.settings(registry.preset(name).trainer) for name in presets}
        self.run = begun_run(home / "run")
        self.levels = saved_levels(home / "levels")
        self.number = 0

    def __iter__(self) -> Iterator[Case]:
        kinds = (
            self.command_line,
            self.setting,
            self.setting,
            self.toml,
            self.checkpoint,
            self.run_folder,
            self.level_folder,
        )
        while True:
            yield self.rng.choice(kinds)()

    def word(self) -> str:
        """Something that a person, a script or a cat on a keyboard may write."""
        rng = self.rng
        return rng.choice(
            (
                lambda: rng.choice(WORDS),
                lambda: rng.choice(WORDS),
                lambda: rng.choice(list(self.paths)),
                lambda: str(rng.randint(-3, 300)),
                lambda: f"{rng.gauss(0, 10):.4g}",
                lambda: self.damaged_text(rng.choice(WORDS + SUITES)),
            )
        )()

    def value_like(self, text: str) -> str:
        """A value of the type of another, often one that cannot work."""
        rng = self.rng
        if "," in text:
            return ",".join(self.value_like(part) for part in text.split(",") if part)
        if ":" in text:
            return rng.choice([each.value for paths in self.paths.values() for each in paths if ":" in each.value])
        if text in ("true", "false"):
            return rng.choice(("true", "false"))
        if text.isdecimal():
            return str(rng.choice((-1, 0, 1, 2, 3, 7, 64, 1000, 10**6, 2**31 - 1, 2**31, 10**12, rng.randint(1, 200))))
        return str(rng.choice((-1.0, 0.0, 1e-30, 1e-3, 0.5, 1.0, 2.0, 100.0, 1e30, "nan", "inf", "none", rng.random())))

    def damaged_text(self, text: str) -> str:
        """A text with letters left out, doubled or exchanged."""
        letters = list(text[:200])
        for _ in range(self.rng.randint(1, 3)):
            place = self.rng.randrange(len(letters) + 1)
            letters[place : place + self.rng.randint(0, 2)] = self.rng.choice(
                ("", "a", "0", "-", "=", ",", "(", '"', "\\")
            )
        return "".join(letters)

    def command_line(self) -> Case:
        """Any command with any options. Of `discover` a dry run, so that nothing is trained."""
        rng = self.rng
        name = rng.choice((*OPTIONS, "discover", "evaluate", self.word()))
        first = {
            "discover": list(self.paths),
            "evaluate": ("quickstart", "lpo-quick", "a=quickstart"),
            "list": ("presets", "settings"),
        }
        arguments = [name]
        if rng.random() < 0.9:
            arguments.append(
                rng.choice(first.get(name, ("quickstart", "lpg-grid"))) if rng.random() < 0.8 else self.word()
            )
        for _ in range(rng.randint(0, 4)):
            option = rng.choice(OPTIONS.get(name, ["--x"]))
            arguments.append(option)
            if option == "--suite":
                arguments.append(rng.choice(SUITES))
            elif rng.random() < 0.8:
                arguments.append(self.word())
        return command([*arguments, "--dry-run"] if name == "discover" else arguments)

    def setting(self) -> Case:
        """A setting that there is, with any value."""
        name = self.rng.choice(list(self.paths))
        arguments = ["discover", name]
        for _ in range(self.rng.randint(1, 3)):
            path, value, _ = self.rng.choice(self.paths[name])
            path = self.damaged_text(path) if self.rng.random() < 0.05 else path
            arguments += [f"--{path}={self.value_like(value) if self.rng.random() < 0.7 else self.word()}"]
        return command([*arguments, "--dry-run"])

    def toml(self) -> Case:
        """A file of settings."""
        name = self.rng.choice(list(self.paths))
        lines = []
        for _ in range(self.rng.randint(1, 4)):
            path = self.rng.choice(self.paths[name]).path
            value = self.rng.choice((*WORDS, "[1, 2]", "2020-01-01", '"text"', "[[1], {a = 1}]", "{ start = 0.1 }"))
            lines.append(self.rng.choice((f"{path} = {value}", f"[{path}]", f"{path} = {json.dumps(value)}")))
        text = "\n".join(lines)
        path = self.fresh("settings.toml")
        path.write_text(self.damaged_text(text) if self.rng.random() < 0.2 else text)
        return command(["discover", name, "--settings", str(path), "--dry-run"])

    def fresh(self, name: str) -> Path:
        """A path that there is not yet."""
        self.number += 1
        folder = self.home / "made" / str(self.number)
        folder.mkdir(parents=True)
        return folder / name

    def checkpoint(self) -> Case:
        """A shipped objective whose files were damaged or edited."""
        folder = self.fresh("checkpoint")
        shutil.copytree(ZOO / self.rng.choice([name for name in zoo_names() if name in self.paths]), folder)
        self.damage(folder, "objective.json")
        ask = self.rng.choice(
            (
                ["evaluate", str(folder), "--suite", "grid-tiny"],
                ["evaluate", str(folder), "quickstart", "--suite", "grid-tiny"],
                ["inspect", str(folder), "--scores"],
                ["discover", "quickstart", "--from", str(folder), "--dry-run"],
            )
        )
        return command(ask)

    def run_folder(self) -> Case:
        """A run that was begun and whose files were damaged; what is refused or only looked at leaves it as it is."""
        folder = self.fresh("run")
        shutil.copytree(self.run, folder)
        others = "evaluation.json", "objective/objective.json"
        self.damage(folder, self.rng.choice(("config.json", "config.json", *others)))
        run = ["discover", "smoke", "--out", str(folder)]
        ask = self.rng.choices(
            ([*run, "--resume", "--dry-run"], [*run, "--resume"], run, ["report", str(folder)]), (4, 4, 1, 1)
        )[0]

        def call() -> int:
            before, goes_on = digests(folder), False
            try:
                return cli.main(ask)
            except ReachedError:
                goes_on = True
                raise
            finally:
                self.check_unharmed(before, digests(folder), goes_on)

        return Case(repr(ask), call)

    def check_unharmed(self, before: dict[str, str], after: dict[str, str], goes_on: bool) -> None:
        """Raise AssertionError where a file of a run was lost or changed. Going on may cut the log and save again."""
        allowed = ("metrics.jsonl", "error.txt", "heartbeat.json") if goes_on else ("report.html",)
        changed = [path for path in before if not path.endswith(allowed) and after.get(path) != before[path]]
        new = [] if goes_on else [path for path in after if path not in before and not path.endswith(allowed)]
        if changed or new:
            raise AssertionError(f"files of the run were changed: {changed}, made: {new}")

    def level_folder(self) -> Case:
        """Levels as files, read from Python."""
        folder = self.fresh("levels")
        shutil.copytree(self.levels, folder)
        self.damage(folder, level_files.FOLDER.document)

        def call() -> int:
            try:
                level_files.load_levels(folder)
            except (CheckpointError, ValueError, OSError) as error:
                print(f"refused: {error}")
                return 2
            return 0

        return Case(f"load_levels({str(folder)!r})", call)

    def damage(self, folder: Path, document: str) -> None:
        """Damage one file of a folder, or edit its document so that the digest fits again."""
        rng = self.rng
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = folder / document if rng.random() < 0.7 else rng.choice(files)
        kind = rng.randrange(6)
        if kind == 0:
            path.unlink()
        elif kind == 1:
            content = path.read_bytes()
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        elif kind == 2:
            content = bytearray(path.read_bytes())
            for _ in range(rng.randint(1, 4) if content else 0):
                content[rng.randrange(len(content))] = rng.randrange(256)
            path.write_bytes(bytes(content))
        elif kind == 3 and path.suffix == ".json":
            path.write_text(rng.choice(("", "[]", "{}", "null", "3", '"x"', "[" * 100_000, "NaN")))
        else:
            self.edit(folder / document)

    def edit(self, path: Path) -> None:
        """Replace something in a JSON document by something else, as a person may who also mends the digest."""
        document = json.loads(path.read_bytes())
        for _ in range(self.rng.randint(1, 2)):
            place: Any = document
            while True:
                keys = list(place) if isinstance(place, dict) else list(range(len(place)))
                key = self.rng.choice(keys)
                inner = place[key]
                if not isinstance(inner, (dict, list)) or not inner or self.rng.random() < 0.15:
                    break
                place = inner
            if isinstance(place, dict) and self.rng.random() < 0.2:
                del place[key]
            else:
                place[key] = self.rng.choice(
                    (
                        None,
                        True,
                        0,
                        -1,
                        3,
                        1.5,
                        1e30,
                        10**30,
                        "",
                        "x",
                        [],
                        {},
                        [1],
                        {"class": "os:system"},
                        {"float": "inf"},
                        "LPG",
                    )
                )
        if isinstance(document, dict) and "sha256" in document and self.rng.random() < 0.9:
            document["sha256"] = hash_document(document)
        path.write_text(json.dumps(document))


def zeros(make: Callable[[], Any]) -> Any:
    """What a function would return, with zeros in all arrays: nothing is compiled for it."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(make))


def begun_run(folder: Path) -> Path:
    """A run that has its first checkpoint, a line in its log, and an objective and scores, without a meta-step done."""
    trainer = registry.preset("smoke").trainer
    with run_folder.opened(folder, trainer, 0, False, {"preset": "smoke"}) as home:
        Checkpoints(home / "checkpoints").save(0, zeros(lambda: trainer.init(first_key(jax.random.key(0)))))
        (home / "metrics.jsonl").write_text('{"step": 1, "fitness": 0.5, "seconds": 2.0}\n')
        shutil.copytree(ZOO / "quickstart", home / "objective")
        scores = json.loads((ZOO / "quickstart" / "objective.json").read_bytes())["evaluation"]
        (home / "evaluation.json").write_text(json.dumps(scores))
    return folder


def saved_levels(folder: Path) -> Path:
    """Levels in files, none of which was ever played."""
    tasks = registry.preset("smoke").trainer.domains[0].curriculum.tasks
    buffer = level_buffer.empty(zeros(lambda: tasks.sample(jax.random.key(0))), 4)
    return level_files.save_levels(level_files.Levels(buffer, tasks), folder)
