"""A grading container in Python: the container's side of the protocol, for a task's run.py.

A second opinion beside grader.rs: it speaks the protocol in another language, keeps to what is said
of INGInious's own container, and hands a student's program its files by a socket, as that does.

As PID 1 it runs /task/run.py, which says what it found with `feedback` and runs programs of a
student with `run_student`. Under the name `_run_student_intern` it is a student's container.
"""

import array
import base64
import io
import json
import os
import select
import shlex
import socket
import struct
import subprocess
import sys
import tarfile

INPUT = "/tmp/input"
FEEDBACK = "/tmp/feedback.json"
WORKER = 4242


def pack(value):
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return struct.pack("B", value)
        return struct.pack(">BQ", 0xCF, value) if value >= 0 else struct.pack(">Bq", 0xD3, value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, str):
        text = value.encode()
        return struct.pack(">BI", 0xDB, len(text)) + text
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, (list, tuple)):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        entries = b"".join(pack(key) + pack(item) for key, item in value.items())
        return struct.pack(">BI", 0xDF, len(value)) + entries
    raise TypeError(type(value))


class Unpacker:
    NUMBERS = {
        0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
        0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
    }
    BLOBS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
    MANY = {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        piece = self.data[self.at:self.at + size]
        assert len(piece) == size
        self.at += size
        return piece

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self):
        head = self.number(">B")
        if head < 0x80:
            return head
        if head < 0x90:
            return {self.value(): self.value() for _ in range(head & 0x0F)}
        if head < 0xA0:
            return tuple(self.value() for _ in range(head & 0x0F))
        if head < 0xC0:
            return self.take(head & 0x1F).decode()
        if head >= 0xE0:
            return head - 0x100
        if head in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[head]
        if head in self.NUMBERS:
            return self.number(self.NUMBERS[head])
        if head in self.BLOBS:
            blob = self.take(self.number(self.BLOBS[head]))
            return blob if head <= 0xC6 else blob.decode()
        count = self.number(self.MANY[head])
        if head <= 0xDD:
            return tuple(self.value() for _ in range(count))
        return {self.value(): self.value() for _ in range(count)}


def unpack(data):
    unpacker = Unpacker(data)
    value = unpacker.value()
    assert unpacker.at == len(data)
    return value


def send(fd, message):
    data = pack(message)
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(fd, data):]


def receive(fd):
    def exactly(size):
        data = b""
        while len(data) < size:
            piece = os.read(fd, size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    return unpack(exactly(struct.unpack(">I", exactly(4))[0]))


# For tasks.


def inputdata():
    with open(INPUT, "rb") as file:
        return unpack(file.read())


def feedback(**fields):
    """What the result has beside what was said before."""
    said = {}
    if os.path.exists(FEEDBACK):
        with open(FEEDBACK) as file:
            said = json.load(file)
    with open(FEEDBACK, "w") as file:
        json.dump({**said, **fields}, file)


def run_student(command, **wishes):
    """The program's code, or the agent's, and what it has printed."""
    run_student.count += 1
    name = f"p{os.getpid()}-{run_student.count}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/sockets/{name}.sock")
    listener.listen()
    parent = socket.socket(socket.AF_UNIX)
    parent.connect("/sockets/main.sock")
    wish = {
        "type": "run_student", "environment": None, "time_limit": 0, "hard_time_limit": 0,
        "memory_limit": 0, "share_network": False, "socket_id": name, "ssh": False,
        "run_as_root": False,
    }
    send(parent.fileno(), {**wish, **wishes})
    with open(os.devnull) as stdin, open("/tmp/out", "w+b") as out, open("/tmp/err", "w+b") as err:
        # It may be refused before anybody connects.
        ready, _, _ = select.select([listener, parent], [], [])
        if listener in ready:
            child, _ = listener.accept()
            assert child.recv(1) == b"H"
            files = array.array("i", [stdin.fileno(), out.fileno(), err.fileno()])
            child.sendmsg([b"S"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
            child.sendall(pack({
                "type": "run_student_command", "student_container_id": "", "command": command,
                "teardown_script": "", "working_dir": "/task/student", "ssh": False,
                "user": "worker",
            }))
        code = receive(parent.fileno())["retval"]
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


run_student.count = 0


# As a student's container.


def student():
    parent = socket.socket(socket.AF_UNIX)
    parent.connect("/__parent.sock")
    parent.sendall(b"H")
    data, ancillary, _, _ = parent.recvmsg(1, socket.CMSG_SPACE(3 * 4))
    assert data == b"S"
    files = array.array("i", ancillary[0][2])
    message = unpack(parent.recv(1 << 16))
    program = subprocess.Popen(
        shlex.split(message["command"]), cwd=message["working_dir"], user=WORKER, group=WORKER,
        extra_groups=[], stdin=files[0], stdout=files[1], stderr=files[2],
    )
    sys.exit(program.wait() & 0xFF)


# As PID 1 of a grading container.


class Grading:
    def __init__(self):
        self.start = receive(0)
        assert self.start["type"] == "start"
        with open(INPUT, "wb") as file:
            file.write(pack(self.start["input"]))
        os.makedirs("/archive", exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind("/sockets/main.sock")
        self.listener.listen()
        self.clients = []
        # By the socket's name: who waits for a program's end.
        self.waiting = {}

    def run(self):
        command = self.start.get("run_cmd", "/usr/bin/python3 /task/run.py").split(" ")
        with open("/tmp/stdout", "w+b") as out, open("/tmp/stderr", "w+b") as err:
            environ = {**os.environ, "PYTHONPATH": "/"}
            script = subprocess.Popen(
                command, cwd="/task", env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            while script.poll() is None:
                self.relay()
            out.seek(0)
            err.seek(0)
            self.say_result(out.read().decode(), err.read().decode())

    def relay(self):
        sources = [0, self.listener, *self.clients]
        ready, _, _ = select.select(sources, [], [], 0.02)
        for source in ready:
            if source == 0:
                answer = receive(0)
                if answer["type"] == "run_student_retval":
                    send(self.waiting.pop(answer["socket_id"]).fileno(), answer)
            elif source is self.listener:
                self.clients.append(self.listener.accept()[0])
            else:
                try:
                    wish = receive(source.fileno())
                    self.waiting[wish["socket_id"]] = source
                    send(1, wish)
                except EOFError:
                    self.clients.remove(source)

    def say_result(self, out, err):
        if os.path.exists(FEEDBACK):
            with open(FEEDBACK) as file:
                result = json.load(file)
        else:
            result = {"result": "crash", "text": "No feedback was given !"}
        if self.start["debug"]:
            result.update(stdout=out, stderr=err)
        if os.listdir("/archive"):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as tar:
                tar.add("/archive", arcname="")
            result["archive"] = base64.b64encode(packed.getvalue()).decode()
        send(1, {"type": "result", "result": result})


if __name__ == "__main__":
    if os.path.basename(sys.argv[0]) == "_run_student_intern":
        student()
    Grading().run()
    # So does the real one, after a good run too.
    sys.exit(1)
