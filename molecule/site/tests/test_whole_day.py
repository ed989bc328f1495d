# SPDX-License-Identifier: GPL-3.0-or-later
"""The day that this fleet is for, from the laptop. In order: each test goes on where the one before it stopped."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator

import pytest
from doc_blocks import to_run
from lab_site import ROOT, inside, on_client

pytestmark = pytest.mark.usefixtures("lab")

SSH = "ssh -o BatchMode=yes"
BASTION = "10.203.10.10"
STEPS = 80
# What the inventory declares for the node (miniconda_environments).
ENVIRONMENT = "/opt/miniconda/envs/nlp-torch"
LOOK, ELSEWHERE, OWN = to_run(ROOT / "docs" / "workspaces.md", "molecule/site/tests/test_whole_day.py")
# Really trained, on what torch finds: a line by least squares, for so many steps and until she has seen enough.
TRAIN = f"""\
import itertools, os, sys, time, torch
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
x = torch.linspace(-1, 1, 256, device=device).unsqueeze(1)
y = 3 * x + 0.5
model = torch.nn.Linear(1, 1).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
print("prefix", sys.prefix, flush=True)
for step in itertools.count():
    if step >= {STEPS} and os.path.exists("enough"):
        break
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    print("step", step, f"{{loss.item():.6f}}", flush=True)
    time.sleep(0.1)
torch.save(model.state_dict(), "model.pt")
print("saved", flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def a_day() -> Iterator[None]:
    """Before it and after it nothing of the day is there, on the laptop or in the workspace."""
    away = f"{SSH} gpu-01 'tmux kill-server 2>/dev/null; rm -rf day .conda'; rm -rf day"
    on_client(away)
    yield
    on_client(away)


def here(command: str) -> str:
    """A command on the laptop; it must work."""
    done = on_client(command)
    assert done.rc == 0, (command, done.stdout, done.stderr)
    return done.stdout


def there(command: str) -> str:
    """A command in the workspace, typed on the laptop; it must work."""
    return here(f"{SSH} gpu-01 {shlex.quote(command)}")


def wait_until(what: str, is_so: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(1)


def steps() -> int:
    return int(there("cat day/train.log 2>/dev/null | grep -c ^step; true"))


def test_1_code_goes_up() -> None:
    here(f"mkdir day && printf %s {shlex.quote(TRAIN)} >day/train.py")
    here("scp -q -o BatchMode=yes -r day gpu-01:")
    assert there("cksum <day/train.py") == here("cksum <day/train.py")


def login(commands: str) -> str:
    """Commands in a login shell of the workspace, each of which must work."""
    return there(f"bash -lc {shlex.quote('set -e; ' + commands)}")


def test_2_the_nodes_environment_is_activated() -> None:
    """As the page says, where it is a login and where it is not. Nothing of it can be changed from here."""
    *listed, found = login(LOOK.text).splitlines()
    assert any(line.split()[-1:] == [ENVIRONMENT] for line in listed)
    assert found.split()[0] == ENVIRONMENT
    assert there(ELSEWHERE.text).splitlines() == [found]
    assert there("awk '$2 == \"/opt/miniconda\" {print $4}' /proc/mounts").startswith("ro,")


def test_2_an_environment_of_her_own_is_made() -> None:
    """With the node's conda, in her home; the node's channels are reached from the workspace."""
    assert login(OWN.text).splitlines()[-1] == "labtool 1.0"
    assert there("ls .conda/envs").split() == ["mine"]


def test_3_jupyter_is_one_forward_away() -> None:
    forwards = [line.split()[1] for line in here("ssh -G gpu-01").splitlines() if line.startswith("localforward ")]
    local = forwards[0].rpartition(":")[2].strip("[]")
    token = there("devnode-jupyter token").strip()
    ask = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{local}/api/status?token={token}').status)"
    assert here(f"python3 -c {shlex.quote(ask)}").strip() == "200"


def test_4_she_sees_her_gpu_and_no_other() -> None:
    listed = there("nvidia-smi --list-gpus").splitlines()
    assert [line.partition(":")[0] for line in listed] == ["GPU 0"]
    assert "%" in there("nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv")


def test_5_a_training_begins_in_tmux() -> None:
    run = "conda activate nlp-torch && python train.py >train.log 2>&1"
    there(f"cd day && tmux new-session -d -s train && tmux send-keys -t train {shlex.quote(run)} Enter")
    wait_until("the training writes its log", lambda: steps() > 0, 60)
    assert there("head -1 day/train.log").split() == ["prefix", ENVIRONMENT]


def looks_on(screen: str) -> None:
    """In a terminal of her own machine, of which a file is kept."""
    look = f"TERM=xterm script -qfc {shlex.quote(f'{SSH} -tt gpu-01 tmux attach -d -t train')} day/{screen}"
    here(f"setsid env {look} >/dev/null 2>&1 </dev/null & sleep 1")
    wait_until("her terminal is attached", lambda: there("tmux list-clients -t train").strip(), 30)


def test_6_it_goes_on_while_the_line_is_cut() -> None:
    """She looks on in a terminal. Nothing passes for a while, and the bastion has forgotten her when it does again."""
    looks_on("screen")
    before = steps()
    cut = inside("client", f"ip route add blackhole {BASTION}/32")
    assert cut.rc == 0, cut.stderr
    try:
        assert on_client(f"timeout 5 {SSH} -S none gpu-01 true").rc != 0
        assert inside("bastion", "pkill -KILL -u ada").rc == 0
    finally:
        assert inside("client", f"ip route del blackhole {BASTION}/32").rc == 0
    wait_until("she is in again by the same command", lambda: on_client(f"timeout 20 {SSH} gpu-01 true").rc == 0, 90)
    wait_until("the training has gone on", lambda: steps() > before, 20)
    # The terminal that was cut off may count as attached until sshd gives it up.
    there("tmux detach-client -s train; true")
    looks_on("screen-again")


def test_7_the_log_is_whole() -> None:
    there("touch day/enough")
    wait_until("the training is done", lambda: "saved" in there("tail -1 day/train.log"), 90)
    lines = [line.split() for line in there("grep ^step day/train.log").splitlines()]
    assert [int(line[1]) for line in lines] == list(range(len(lines)))
    assert len(lines) >= STEPS
    assert float(lines[-1][2]) < float(lines[0][2]) / 1000


def test_8_the_model_comes_down() -> None:
    here("scp -q -o BatchMode=yes gpu-01:day/model.pt day/")
    assert there("cksum <day/model.pt") == here("cksum <day/model.pt")
    load = "import torch; print(torch.load('day/model.pt')['weight'].item())"
    assert abs(float(there(f"python3 -c {shlex.quote(load)}")) - 3) < 0.1
