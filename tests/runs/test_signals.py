"""A Ctrl-C is heard whatever the process does: before a loop it ends the process, in a loop the second one does."""

import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # minutes in C, as compiling is: no handler runs meanwhile
CODE = f"""
import hashlib, os, signal, sys
from metadisco.runs import signals
if "first" in sys.argv:
    os.getpid = lambda: 1  # as in a container
with signals.heard_at_once():
    if "loop" in sys.argv:
        with signals.Signals():
            print("ready", flush=True)
            {BUSY}
    print("ready", flush=True)
    {BUSY}
"""


def started(*arguments: str) -> subprocess.Popen:
    """A process that is busy in C when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    return process


def test_an_interrupt_ends_a_process_that_is_busy():
    process = started()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.strip() == "metadisco: interrupted"


def test_process_1_of_a_container_heeds_sigterm():
    process = started("first")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143  # by a handler: without one, -15, and nothing at all in a container


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_in_a_loop_the_first_signal_asks_and_an_interrupt_after_it_ends(first):
    process = started("loop")
    process.send_signal(first)
    assert "Stopping after this chunk" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGTERM)  # schedulers repeat it
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_handlers_are_as_they_were_afterwards():
    code = "import signal; from metadisco.runs import signals; before = signal.getsignal(signal.SIGINT)\n"
    code += "with signals.heard_at_once(): pass\nassert signal.getsignal(signal.SIGINT) is before\n"
    code += "assert signal.set_wakeup_fd(-1) == -1"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0, 5.0])
def test_an_interrupt_of_the_command_before_meta_training_is_never_lost(tmp_path, seconds):
    """While it imports, builds, compiles: it ends at once, with a word and without a traceback."""
    command = [sys.executable, "-m", "metadisco", "discover", "smoke", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - asked < 10
    assert "Traceback" not in said
    assert "interrupted" in said or "Stopping" in said


def test_an_interrupt_is_heard_before_the_command_line_is_imported():
    """The handler is there when the import of `metadisco.cli` begins, and what comes before it takes no time."""
    code = """
import os, signal, sys
from metadisco.__main__ import main
slow = {"argparse", "dataclasses", "importlib.metadata", "pathlib", "typing"} & set(sys.modules)
class Interrupted:
    def find_spec(self, name, *_):
        if name == "metadisco.cli":
            print(slow, flush=True)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupted())
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 130
    assert done.stderr.strip() == "metadisco: interrupted"
    assert done.stdout == "set()\n"


def test_the_command_is_the_module_with_that_handler():
    (script,) = (tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]).items()
    assert script == ("metadisco", "metadisco.__main__:main")
