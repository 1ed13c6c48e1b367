"""Writes the fixtures beside it, with Python's msgpack: a second opinion on the bytes.

    pip install msgpack && python3 make.py
"""

import msgpack
from pathlib import Path


def write(name, messages):
    lines = []
    for title, fields in messages:
        packed = msgpack.packb(fields, use_bin_type=True)
        lines.append(f"{title} {packed.hex()}\n")
    (Path(__file__).parent / name).write_text("".join(lines))


ENVIRONMENT = {
    "id": "sha256:0f1e",
    "created": 1755611511,
    "ports": [22, 8080],
    "advertised": True,
    "title": "Python 3",
    "runtime": "io.containerd.runc.v2",
}

DONE = {
    "job_id": "j-1",
    "result": ("success", "Bravo, l'élève !"),
    "grade": 100.0,
    "problems": {"q1": ["success", "ok"]},
    "tests": {"t.1*": 3},
    "custom": {"nested": {"list": [1, -1, 2.5, None, True, b"\x00\xff"]}, 7: "seven"},
    "state": "{}",
    "archive": b"\x1f\x8b" + bytes(range(256)),
    "stdout": "out",
    "stderr": "",
    "@type": "AgentJobDone",
}

write("to_backend.hex", [
    ("hello", {
        "friendly_name": "slotmux",
        "available_job_slots": 4,
        "available_environments": {"docker": {"default": ENVIRONMENT}, "docker-ssh": {}},
        "@type": "AgentHello",
    }),
    ("started", {"job_id": "j-1", "@type": "AgentJobStarted"}),
    ("done", DONE),
    ("crash", {
        "job_id": "j-2",
        "result": ("crash", "x" * 300),
        "grade": 0.0,
        "problems": {},
        "tests": {},
        "custom": {},
        "state": "",
        "archive": None,
        "stdout": None,
        "stderr": None,
        "@type": "AgentJobDone",
    }),
    ("ssh_debug", {
        "job_id": "j-1",
        "host": "192.0.2.1",
        "port": 64120,
        "user": "worker",
        "password": "secret",
        "@type": "AgentJobSSHDebug",
    }),
    ("pong", {"@type": "Pong"}),
])

JOB = {
    "job_id": "a8098c1a-f86e-11da-bd1a-00112444be1e",
    "course_id": "tutorial",
    "task_id": "04_run_student",
    "task_problems": {"q1": {"type": "code", "name": "Écrivez"}},
    "inputdata": {
        "q1": "print(1)\n",
        "file": {"filename": "a.bin", "value": bytes(range(256))},
        "@state": "state",
        "@random": [0.25, 1],
        3: -70000,
        None: 1 << 63,
    },
    "environment_type": "docker",
    "environment": "default",
    "environment_parameters": {
        "limits": {"time": "30", "hard_time": "", "memory": 100},
        "network_grading": False,
    },
    "debug": False,
    "@type": "BackendNewJob",
}

write("from_backend.hex", [
    ("new_job", JOB),
    # Without a task, by somebody who wants to look in, and with its type first.
    ("taskless", {"@type": "BackendNewJob"} | JOB
        | {"course_id": None, "task_id": None, "task_problems": {}, "debug": "ssh"}),
    ("kill", {"job_id": "j-1", "state": "before", "@type": "BackendKillJob"}),
    ("ping", {"@type": "Ping"}),
])
