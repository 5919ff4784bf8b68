"""A run in processes of its own, one or several, for the tests: `python -m tests.support.many SPEC`, SPEC being JSON.

`trainer` names one in `TRAINERS`; `options` are `loop.RunOptions`; `devices` of each process are forced; `process` is
[address, number of processes, number of this one]; `full_at` fills the disk up when that meta-step is saved; with
`dies_in` "validation" or "meta-test" process 0 is killed when it comes to that, which the others wait for. What comes
of it is in the file `result`: the meta-parameters, and everything else of the state that this process has.
"""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_address():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{server.getsockname()[1]}"


def start(spec, num_processes=1, stderr=None, **changes):
    """Start the processes; `changes` of the spec are lists with an entry for each."""
    address, started = free_address(), []
    for index in range(num_processes):
        own = {name: values[index] for name, values in changes.items()}
        joined = {"process": [address, num_processes, index]} if num_processes > 1 else {}
        text = json.dumps(joined | spec | own)
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        command = [sys.executable, "-m", "tests.support.many", text]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stderr, text=True))
    return started


def finish(started, timeout=120):
    """Exit codes and, where they were piped, what the processes said on stderr."""
    try:
        said = [process.communicate(timeout=timeout)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def gradient_trainer():
    from tests.support import small

    return small.gradient_trainer(num_tasks=8, num_steps=3)


def trainer_named(name):
    from tests.support import small, toy

    makers = {
        "long": lambda: toy.Toy(num_steps=20_000),
        "spread": lambda: toy.SPREAD_OUT,
        "long spread": lambda: toy.Spread(num_steps=3000),
        "evolution": small.trainer,
        "gradient": gradient_trainer,
    }
    return makers[name]()


def fill_up_at(step):
    """From the checkpoint of this meta-step on, there is no space left on the device after the first bytes."""
    from orbax.checkpoint import v1 as orbax

    save = orbax.save

    def full(path, leaves, *args, **kwargs):
        if int(path.name) < step:
            return save(path, leaves, *args, **kwargs)
        partial = path.with_name(f"{path.name}.orbax-checkpoint-tmp")
        partial.mkdir(exist_ok=True)
        (partial / "d").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    orbax.save = full


def die(_=None):
    """Without notice, and not at once: by then the others wait."""
    time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


def run(spec):
    import numpy as np

    from metadisco.core import processes
    from metadisco.core.files import named_leaves
    from tests.support import toy

    trainer, options = trainer_named(spec["trainer"]), spec.get("options", {})
    hooks = [toy.validation(die, 10)] if spec.get("dies_in") == "validation" else []
    result = toy.run(trainer, Path(spec["out"]), hooks, resume=True, **options)
    if spec.get("dies_in") == "meta-test" and processes.is_first():
        die()
    if "result" in spec and result.status == "finished":
        leaves = {name: leaf for name, leaf in named_leaves(result.state).items() if is_plain(leaf)}
        np.savez(spec["result"], **{name: np.asarray(leaf) for name, leaf in leaves.items()})
    return result.exit_code


def is_plain(leaf):
    from metadisco.core.files import is_key

    return leaf.is_fully_addressable and not is_key(leaf)


def main(spec):
    import jax

    jax.config.update("jax_num_cpu_devices", spec.get("devices", 1))
    from metadisco import cli
    from metadisco.core import processes

    try:
        if "process" in spec:
            processes.join(*spec["process"], seconds=spec.get("seconds", 20.0))
        if "full_at" in spec:
            fill_up_at(spec["full_at"])
        code = run(spec)
        processes.leave(code)
    except BaseException as error:
        code, failure = cli._explain(error)
        print(failure, file=sys.stderr)
        processes.leave(code, failure)
    return code


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
