"""The launch file for Slurm on a real Slurm: a private one of two nodes on this machine, for as long as the tests run.

Skipped where Slurm is not installed (Debian and Ubuntu: `slurm-wlm` and `munge`).
"""

import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "launch" / "slurm.sbatch"
NODES = "127.0.0.1", "127.0.0.2"  # names that need no look-up
DAEMONS = "munged", "slurmctld", "slurmd"

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
GresTypes=gpu
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=ALL PriorityTier=1 Default=YES
PartitionName=high Nodes=ALL PriorityTier=2
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr={name} Port={port} CPUs=16 RealMemory=70000 Gres=gpu:2\n"


def command(name):
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(fact, seconds, what):
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)
    return found


class Cluster:
    """A private Slurm in a folder, and what is asked of it."""

    def __init__(self, folder):
        self.folder, self.daemons = folder, []
        host, ports = socket.gethostname().partition(".")[0], free_ports(3)
        nodes = "".join(NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports[1:]))
        text = CONFIGURATION.format(host=host, ports=ports, user=getpass.getuser(), folder=folder)
        (folder / "slurm.conf").write_text(text + nodes)
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
        version = subprocess.run([command("slurmd"), "-V"], capture_output=True, text=True, check=True).stdout
        is_new = int(re.findall(r"\d+", version)[0]) >= 23  # and would look for systemd; before, it is not looked for
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if is_new else "# none\n")
        for name in ("gpu0", "gpu1"):
            (folder / name).touch()
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        self.runs = folder / "runs"
        here = Path(sys.executable).parent
        own = {"SLURM_CONF": f"{folder}/slurm.conf", "RUNS": str(self.runs), "PRESET": "smoke", "JAX_PLATFORMS": "cpu"}
        # Processes of one machine share its cores; more devices than one each would only be slower.
        own |= {"PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | own

    def start(self):
        munge = [
            f"--{name.replace('_', '-')}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")
        ]
        self.daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *munge)
        wait_for((self.folder / "munge.socket").exists, 20, "munged")
        self.daemon("slurmctld", "-D", "-c")
        for name in NODES:
            self.daemon("slurmd", "-D", "-N", name)
        wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T", check=False).strip() == "idle", 30, "slurmd")

    def daemon(self, name, *arguments):
        with (self.folder / f"{name}.log").open("a") as log:
            call = [command(name), *arguments]
            self.daemons.append(subprocess.Popen(call, env=self.environment, stdout=log, stderr=log))

    def stop(self):
        """Jobs first, since their processes are no children of the daemons; then the daemons, the youngest first."""
        with contextlib.suppress(subprocess.SubprocessError, AssertionError, OSError):
            self.ask("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}", check=False)
            self.ask("scancel", f"--user={getpass.getuser()}", check=False)
            wait_for(lambda: not self.ask("squeue", "--noheader").strip(), 45, "the end of all jobs")
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for number in self.processes():
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)

    def processes(self, *words):
        """Numbers of the processes that were started in this cluster and have these words in their command line."""
        mark, found = f"SLURM_CONF={self.folder}/slurm.conf".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (path / "cmdline").read_bytes()
                if mark in (path / "environ").read_bytes() and all(word.encode() in line for word in words):
                    found.append(int(path.name))
        return [number for number in found if number != os.getpid()]

    def ask(self, *words, check=True):
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, *words, settings=()):
        """Submit the launch file; the job's number."""
        said = self.ask("sbatch", "--parsable", "--cpus-per-task=2", *words, str(SCRIPT), *settings)
        return said.strip()

    def job(self, number):
        """What Slurm knows of a job or task of an array."""
        fields = self.ask("scontrol", "show", "job", "--oneliner", number).split()
        return dict(field.partition("=")[::2] for field in fields)

    def ended(self, number, seconds=300):
        """Wait for the end of a job; its last state, exit code and number of restarts."""

        def fact():
            job = self.job(number)
            return job if job["JobState"] in {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"} else None

        job = wait_for(fact, seconds, f"the end of job {number}")
        return job["JobState"], job["ExitCode"], int(job["Restarts"])

    def steps(self, name):
        """The meta-steps in a run's log."""
        path = self.runs / name / "metrics.jsonl"
        return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_steps(self, name, count):
        wait_for(lambda: len(self.steps(name)) > count, 180, f"{count} meta-steps of {name}")

    def log(self, number, task):
        return (self.folder / f"metadisco-{number}-{task}.log").read_text()

    def last_words(self):
        return "\n".join(path.read_text(errors="replace")[-500:] for path in self.folder.glob("*.log"))


@pytest.fixture(scope="module")
def cluster():
    missing = [name for name in DAEMONS if not command(name)]
    if missing:
        pytest.skip(f"no Slurm here: {', '.join(missing)}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, since the path of a socket must be
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        try:
            cluster.start()
        except AssertionError as error:
            pytest.skip(f"Slurm does not start here: {error}\n{cluster.last_words()}")
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_array_of_seeds_runs_to_its_end_though_one_is_told_to_stop(cluster):
    number = cluster.submit("--array=0-1", settings=("--num_steps", "300"))
    cluster.wait_for_steps("smoke-seed1", 20)
    cluster.ask("scancel", "--signal=TERM", f"{number}_1")  # as --signal=TERM@120 does before the time is over
    for seed, restarts in ((0, 0), (1, 1)):
        assert cluster.ended(f"{number}_{seed}") == ("COMPLETED", "0:0", restarts), cluster.log(number, seed)
        assert cluster.steps(f"smoke-seed{seed}") == list(range(1, 301))
        assert (cluster.runs / f"smoke-seed{seed}" / "report.html").exists()
    assert "Ended with 143; back into the queue" in cluster.log(number, 1)


def test_preempted_run_saves_and_goes_on_and_a_cancelled_one_stays_cancelled(cluster):
    number = cluster.submit("--array=2", settings=("--num_steps", "5000"))
    run, task = "smoke-seed2", f"{number}_2"
    cluster.wait_for_steps(run, 40)
    urgent = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=urgent.log", "--wrap=sleep 1"]
    cluster.ask(*urgent)
    wait_for(lambda: "Stopped after meta-step" in cluster.log(number, 2), 40, "a checkpoint")
    (stopped_at,) = re.findall(r"Stopped after meta-step (\d+)", cluster.log(number, 2))
    cluster.wait_for_steps(run, int(stopped_at) + 20)
    assert cluster.job(task)["Restarts"] == "1"
    assert f"meta-step {int(stopped_at) + 1}/5000" in cluster.log(number, 2)
    cluster.ask("scancel", task)
    assert cluster.ended(task)[0] == "CANCELLED"
    wait_for(lambda: not cluster.ask("squeue", "--noheader").strip(), 60, "an empty queue")
    steps = cluster.steps(run)
    assert steps == list(range(1, len(steps) + 1))


def test_two_nodes_find_each_other_and_survive_a_killed_process(cluster):
    number = cluster.submit("--array=3", "--nodes=2", settings=("--num_steps", "200"))
    cluster.wait_for_steps("smoke-seed3", 20)
    processes = set(cluster.processes("metadisco", "--distributed")) - set(cluster.processes("--kill-on-bad-exit"))
    assert len(processes) == 2
    os.kill(max(processes), signal.SIGKILL)
    assert cluster.ended(f"{number}_3") == ("COMPLETED", "0:0", 1), cluster.log(number, 3)
    assert "Ended with 137; back into the queue" in cluster.log(number, 3)
    assert cluster.steps("smoke-seed3") == list(range(1, 201))


def test_mistake_on_several_nodes_is_not_tried_again(cluster):
    number = cluster.submit("--array=4", "--nodes=2", settings=("--num_tasks", "-1"))
    assert cluster.ended(f"{number}_4") == ("FAILED", "2:0", 0), cluster.log(number, 4)
