#!/usr/bin/env python3
"""What deploy/check-package needs beside a shell: stand-in providers, an older schema, load and restarts."""

import atexit
import hashlib
import http.client
import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

PATIENCE_S = 60
ROUNDS = 5


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers every call, as a stream of ten pieces if that is asked for."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            piece = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "word "}}]}
            for _ in range(10):
                self.chunk(f"data: {json.dumps(piece)}\n\n")
                time.sleep(0.05)
            end = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            self.chunk(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            message = {"role": "assistant", "content": "all is well"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def chunk(self, text):
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


def providers(ports):
    servers = [Server(("127.0.0.1", 0), Provider) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(ports + ".new", "w", encoding="ascii") as file:
        print(*(server.server_port for server in servers), file=file)
    os.rename(ports + ".new", ports)
    signal.pause()


def free_ports():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    print(*(it.getsockname()[1] for it in sockets))


def older_schema(migrations, database):
    """The database of the release before the newest migration."""
    files = sorted(name for name in os.listdir(migrations) if name.endswith(".sql"))
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,"
            " installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL,"
            " checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)"
        )
        for name in files[:-1]:
            with open(os.path.join(migrations, name), "rb") as file:
                text = file.read()
            connection.executescript(text.decode())
            version, description = name.removesuffix(".sql").split("_", 1)
            row = (int(version), description.replace("_", " "), hashlib.sha384(text).digest())
            connection.execute(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)"
                " VALUES (?, ?, TRUE, ?, 0)",
                row,
            )


class Load:
    """Clients with keep-alive that never try twice, and streams."""

    def __init__(self, port):
        self.port = port
        self.stopped = False
        self.answered = 0
        self.failures = []
        self.lock = threading.Lock()
        lanes = [False] * 4 + [True] * 4
        self.threads = [threading.Thread(target=self.ask, args=lane) for lane in enumerate(lanes)]
        for thread in self.threads:
            thread.start()

    def ask(self, lane, stream):
        client, number = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S), 0
        while not self.stopped:
            number += 1
            body = {"model": "gpt-4o", "user": f"{lane}-{number}", "stream": stream, "messages": []}
            try:
                headers = {"content-type": "application/json", "authorization": "Bearer sk-client"}
                client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
                answer = client.getresponse()
                text = answer.read()
                good = answer.status == 200 and (b"[DONE]" in text if stream else b"well" in text)
                failure = None if good else f"{answer.status} {text[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                failure = repr(error)
                client.close()
            with self.lock:
                self.answered += 1
                if failure:
                    self.failures.append(failure)
            time.sleep(0.01)

    def stop(self):
        self.stopped = True
        for thread in self.threads:
            thread.join()


def start(root):
    """One cutover on the sockets that this process was given; its log, line by line."""
    env = dict(os.environ, LISTEN_FDS="2", LISTEN_FDNAMES="proxy:admin")
    env.pop("LISTEN_PID", None)
    command = ["chroot", root, "env", "-C", "/srv/cutover", "/usr/bin/cutover", "run", "--config", "cutover.toml"]
    child = subprocess.Popen(
        command, env=env, pass_fds=(3, 4), stderr=subprocess.PIPE, text=True, errors="replace"
    )
    atexit.register(child.kill)
    child.lines = []

    def read():
        for line in child.stderr:
            child.lines.append(line)
            print(line, end="", flush=True)

    threading.Thread(target=read, daemon=True).start()
    return child


def until(what, is_it):
    deadline = time.monotonic() + PATIENCE_S
    while not is_it():
        if time.monotonic() > deadline:
            sys.exit(f"never: {what}")
        time.sleep(0.02)


def said(child, words):
    def is_it():
        if any(words in line for line in child.lines):
            return True
        if child.poll() is not None:
            sys.exit(f"cutover ended with {child.returncode} before it said {words!r}")
        return False

    until(words, is_it)


def ask(admin, method, path, body=None):
    client = http.client.HTTPConnection("127.0.0.1", int(admin), timeout=PATIENCE_S)
    client.request(method, path, json.dumps(body), {"connection": "close"})
    answer = client.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(f"{method} {path}: {answer.status} {text!r}")
    return json.loads(text)


def restarts(root, proxy, admin):
    began = time.monotonic()
    old = start(root)
    said(old, " ready ")
    print(f"   first start: {time.monotonic() - began:.2f} s to ready")
    ask(admin, "PUT", "/api/v1/rollouts/default/weight", {"weight": "50%"})
    load = Load(int(proxy))
    for number in range(ROUNDS):
        time.sleep(1)
        before, began = load.answered, time.monotonic()
        if number % 2 == 0:
            new = start(root)
            said(new, " ready ")
            old.send_signal(signal.SIGTERM)
        else:
            old.send_signal(signal.SIGTERM)
            new = start(root)
            said(new, " ready ")
        if old.wait(PATIENCE_S) != 0:
            sys.exit(f"the old process ended with {old.returncode}")
        said(new, "this process decides now")
        took, answered = time.monotonic() - began, load.answered - before
        print(f"   restart {number + 1}: {took:.2f} s, {answered} answers meanwhile", flush=True)
        old = new
    time.sleep(1)
    load.stop()
    rollout = ask(admin, "GET", "/api/v1/status")["rollouts"][0]
    old.send_signal(signal.SIGTERM)
    old.wait(PATIENCE_S)
    with sqlite3.connect(os.path.join(root, "srv/cutover/cutover.db")) as database:
        (rows,) = database.execute("SELECT count(*) FROM request WHERE outcome = 'ok'").fetchone()
        (counted,) = database.execute("SELECT sum(requests) FROM arm_total").fetchone()
        (schema,) = database.execute("SELECT max(version) FROM _sqlx_migrations").fetchone()
    # One request of the shell's beside those of the load.
    asked = load.answered + 1
    print(f"   {load.answered} requests, {len(load.failures)} failed, {rows} rows, {counted} counted, schema {schema},"
          f" weight {rollout['weight']:.0%}")
    if load.failures or rows != asked or counted != asked or rollout["weight"] != 0.5:
        sys.exit(f"something was lost: {load.failures[:5]}")


if __name__ == "__main__":
    {"providers": providers, "free-ports": free_ports, "older-schema": older_schema, "restarts": restarts}[
        sys.argv[1]
    ](*sys.argv[2:])
