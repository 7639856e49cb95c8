"""The recipes of docs/guides/clusters.md: their shell and YAML are whole, and say what the launcher does.

The slow tests run them here, as two machines of one CPU rank each, with stand-ins for ssh and SLURM: one
launcher is sent a signal in the middle, and the recipe goes on by itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from unimo import cli
from unimo.config import list_recipes

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "guides" / "clusters.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"^```(bash|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "bash"]
SLURM, SSH = SHELL
STEPS = 40
TINY = (
    f"unimo3_tiny train.max_steps={STEPS} train.batch_size=8 train.log_every=1 train.eval_max_batches=1 "
    "data.scenes.train_images=64 data.scenes.val_images=8 output_dir={}"
)
STAND_INS = {
    # The last argument is the command; a real sshd runs it with a shell, too.
    "ssh": 'exec bash -c "${@: -1}"\n',
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >>"$MADE/requeued"; fi\n',
    "srun": """while [ "${1#--}" != "$1" ]; do shift; done
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
wait "$first"; one=$?
wait "$second"; two=$?
exit $((one > two ? one : two))
""",
}  # fmt: skip


@pytest.mark.parametrize("script", SHELL)
def test_shell_can_be_parsed(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.startswith("#!/usr/bin/env bash\n")


def test_every_recipe_exists() -> None:
    named = set(re.findall(r"\b(\w+_(?:base|tiny|large))\b", PAGE))
    assert named and named <= list_recipes("pretrain").keys()
    assert (ROOT / "scripts" / "run_pretrain.sh").is_file()


def test_exit_codes_are_those_of_the_tools() -> None:
    rows = {
        int(code): again for code, again in re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    }
    assert rows.keys() == {0, cli.STOPPED, cli.USER_ERROR}
    assert rows[cli.STOPPED] == "yes"
    assert f'"$code" -eq {cli.STOPPED}' in SLURM
    assert f'"$code" -eq {cli.USER_ERROR}' in SSH


def test_slurm_signals_one_task_a_machine_before_the_end() -> None:
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", SLURM, re.MULTILINE))
    assert options["ntasks-per-node"] == "1"
    assert re.fullmatch(r"USR1@\d+", options["signal"])  # `B:` would signal the script alone
    assert "requeue" in options
    assert "exec bash scripts/run_pretrain.sh" in SLURM


def test_kubernetes_pods_find_each_other_and_are_run_again() -> None:
    ((_, text),) = [block for block in BLOCKS if block[0] == "yaml"]
    service, job = yaml.safe_load_all(text)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = {entry["name"]: entry for entry in container["env"]}
    name = job["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert int(environ["NNODES"]["value"]) == spec["completions"] == spec["parallelism"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert environ["MASTER_ADDR"]["value"] == f"{name}-0.{pod['subdomain']}"
    index = environ["NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    assert pod["terminationGracePeriodSeconds"] >= 120
    rules = {
        rule["action"]: rule["onExitCodes"]["values"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert rules == {"FailJob": [cli.USER_ERROR], "Ignore": [cli.STOPPED]}
    assert all(
        rule["onExitCodes"]["containerName"] == container["name"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    )
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["command"] == ["bash", "scripts/run_pretrain.sh"]


def start(script: str, made: Path, **environ: str) -> subprocess.Popen[bytes]:
    """Run a recipe of the page with the tiny model and stand-ins for what is not here."""
    tools = made / "bin"
    tools.mkdir(exist_ok=True)
    for name, body in STAND_INS.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (tools / name).chmod(0o755)
    words = TINY.format(made / "run")
    script, found = re.subn(r"unimo3_base data\.pairs=\S+ output_dir=[^\s\"]+", words, script)
    assert found == 1
    script = script.replace("hosts=(10.0.0.1 10.0.0.2)", "hosts=(127.0.0.1 127.0.0.1)").replace(
        "sleep 10", "sleep 1"
    )
    (made / "recipe.sh").write_text(script)
    fresh = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "MADE": str(made), "NPROC_PER_NODE": "1"}
    with (made / "log").open("a") as log:
        return subprocess.Popen(
            ["bash", str(made / "recipe.sh")], cwd=ROOT, env={**fresh, **environ}, stdout=log, stderr=log
        )


def steps(made: Path) -> list[int]:
    """The steps that were logged."""
    path = made / "run" / "metrics.jsonl"
    rows = map(json.loads, path.read_text().splitlines()) if path.is_file() else []
    return [row["step"] for row in rows if row["split"] == "train"]


def signal_second_machine(made: Path, number: signal.Signals) -> None:
    """Wait for the first steps and send a signal to the launcher of the second machine."""
    began = time.monotonic()
    while len(steps(made)) < 3:
        assert time.monotonic() - began < 240, (made / "log").read_text()[-2000:]
        time.sleep(0.1)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            environ = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_launcher = b"unimo.training.launch" in words and b"-m" in words
        if is_launcher and b"NODE_RANK=1" in environ and f"MADE={made}".encode() in environ:
            os.kill(int(process.name), number)
            return
    pytest.fail("no launcher of the second machine")


def finish(process: subprocess.Popen[bytes], made: Path) -> int:
    """Wait for a recipe to end, and give its exit code."""
    try:
        return process.wait(timeout=400)
    except subprocess.TimeoutExpired:
        process.terminate()
        pytest.fail((made / "log").read_text()[-2000:])


@pytest.mark.slow
def test_ssh_goes_on_after_a_signal_to_one_machine(tmp_path: Path) -> None:
    process = start(SSH, tmp_path)
    signal_second_machine(tmp_path, signal.SIGTERM)
    assert finish(process, tmp_path) == 0
    assert f"ended with code {cli.STOPPED}" in (tmp_path / "log").read_text()
    assert steps(tmp_path) == list(range(1, STEPS + 1))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ranks"] == 2


@pytest.mark.slow
def test_slurm_puts_a_stopped_job_back_into_the_queue(tmp_path: Path) -> None:
    job = {
        "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_NODELIST": "a,b", "SLURM_JOB_ID": "17", "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip
    process = start(SLURM, tmp_path, **job)
    signal_second_machine(tmp_path, signal.SIGUSR1)
    assert finish(process, tmp_path) == cli.STOPPED
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    assert finish(start(SLURM, tmp_path, **job), tmp_path) == 0
    assert steps(tmp_path) == list(range(1, STEPS + 1))
