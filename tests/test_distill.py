"""distill.py: every answer is asked for once and none is lost, whatever the teacher, the network or the user do."""
import collections
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

import cli
import distill

KEY = "sk-0123456789abcdef-secret"
COMMAND = """import cli, distill
parser = cli.Parser("prepare.py distill")
distill.add_flags(parser)
cli.run(lambda: distill.run(parser.parse_args()))"""


class Teacher(http.server.ThreadingHTTPServer):
    """
    Speaks /v1/chat/completions and /v1/completions, and writes down what it was asked and what it sent. `faults`: the
    prompt, or "*" for any -> what happens to it, request by request.
    """

    daemon_threads, request_queue_size, block_on_close = True, 64, False

    def __init__(self, faults=None, latency=0.0, key="", answer=None, usage=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = {k: list(v) for k, v in (faults or {}).items()}
        self.latency, self.key, self.usage = latency, key, usage
        self.answer = answer or (lambda prompt: f"The answer to {prompt!r} is {sum(map(ord, prompt))}.")
        self.requests, self.asked, self.connections = [], collections.Counter(), set()
        self.url, self.lock = f"http://127.0.0.1:{self.server_port}/v1", threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):  # a client that went away is part of the game
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1

    def log_message(self, *_):
        pass

    def do_POST(self):
        server, request = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["prompt"] if self.path.endswith("/v1/completions") else request["messages"][-1]["content"]
        with server.lock:
            server.connections.add(self.client_address)
            server.asked[prompt] += 1
            server.requests.append((time.monotonic(), prompt, request))
            faults = server.faults.get(prompt) or server.faults.get("*") or [""]
            fault = faults.pop(0) if faults else ""
        time.sleep(server.latency)
        text = server.answer(prompt)
        choice = {"index": 0, "finish_reason": "stop"} | (
            {"text": text} if "prompt" in request else {"message": {"role": "assistant", "content": text}})
        if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            fault = "401"
        reply = {"model": "oracle-1", "choices": [choice],
                 "usage": server.usage and {"prompt_tokens": len(prompt), "completion_tokens": len(text)}}
        if isinstance(fault, dict):  # the answer, otherwise
            choice |= fault
        elif fault == "hang":
            return time.sleep(3)
        elif fault == "reset":
            self.close_connection = True
            return self.connection.close()
        elif fault == "cut":  # JSON that ends early, of a length that is right
            return self.send(200, json.dumps(reply).encode()[:-20])
        elif fault == "short":  # fewer bytes than announced
            self.close_connection = True
            return self.send(200, json.dumps(reply).encode()[:-20], {"Content-Length": "1000"})
        elif fault == "no choices":
            told = {"error": {"message": f"overloaded by {self.headers.get('Authorization')}"}}
            return self.send(200, json.dumps(told).encode())
        elif fault:
            status, _, after = fault.partition(" ")
            told = {"error": {"message": f"{fault}, and your key is {self.headers.get('Authorization')}"}}
            return self.send(int(status), json.dumps(told).encode(), {"Retry-After": after} if after else {})
        self.send(200, json.dumps(reply).encode())

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(distill, "BACKOFF", 0.01)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def prompts_file(tmp_path, prompts, name="prompts.jsonl"):
    path = tmp_path / name
    path.write_text("".join((p if name.endswith(".txt") else json.dumps(p)) + "\n" for p in prompts))
    return str(path)


def ask(tmp_path, teacher, prompts, *flags, out="out"):
    """`prepare.py distill` in this process -> its directory."""
    parser = cli.Parser("prepare.py distill")
    distill.add_flags(parser)
    path = prompts if isinstance(prompts, str) else prompts_file(tmp_path, prompts)
    address = [teacher.url, "--model", "oracle"] if isinstance(teacher, Teacher) else [str(teacher)]
    distill.run(parser.parse_args([path, "--out", str(tmp_path / out), "--teacher", *address, *map(str, flags)]))
    return tmp_path / out


def start(tmp_path, teacher, path, *flags):
    command = [sys.executable, "-c", COMMAND, path, "--out", str(tmp_path / "out"), "--teacher", teacher.url,
               "--model", "oracle", *map(str, flags)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            cwd=os.path.dirname(distill.__file__),  # a shell's "&" has us ignore Ctrl-C:
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


def figures(out):
    return manifest(out)["distillation"]


def reasons(out):
    return {r["messages"][0]["content"]: r["reason"] for r in lines(out / "dropped.jsonl")}


def content(out):
    """All that a directory holds, but for the times."""
    held = {p.name: p.read_text() for p in out.iterdir()}
    told = manifest(out)
    told["distillation"].pop("timing")
    return held | {"manifest.json": told}


def some(n):
    return [{"prompt": f"Question {i}?"} for i in range(n)]


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# What comes out


def test_answers_become_examples(tmp_path):
    prompts = [{"prompt": "One?"}, {"messages": [{"role": "user", "content": "Two?"}]},
               {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Three?"},
                             {"role": "assistant", "content": "3"}]},
               {"prompt": "Four?", "completion": "4"}, {"prompt": "One?"}]
    with Teacher() as teacher:
        out = ask(tmp_path, teacher, prompts, "--system", "You know it all.", "--val_fraction", 0.25,
                  "--licence", "MIT", "--temperature", 0.5, "--seed", 7, "--max_new_tokens", 99,
                  "--price_in", 1e6, "--price_out", 2e6)
    assert teacher.asked == dict.fromkeys(["One?", "Two?", "Three?", "Four?"], 1)
    request = next(r for _, prompt, r in teacher.requests if prompt == "Three?")
    assert [m["content"] for m in request.pop("messages")] == ["Be brief.", "Three?"]
    assert request == {"model": "oracle", "max_tokens": 99, "temperature": 0.5, "seed": 7, "stream": False}
    records = {r["messages"][1]["content"]: r for split in ("train", "val") for r in lines(out / f"{split}.jsonl")}
    assert records["One?"]["messages"] == [
        {"role": "system", "content": "You know it all."}, {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "The answer to 'One?' is 353."}]
    assert records["Three?"]["messages"][0]["content"] == "Be brief."
    assert records["Two?"]["meta"] == dict(line=2, teacher=teacher.url, model="oracle-1", finish="stop")
    told, said = manifest(out), figures(out)
    assert told["kind"] == "sft" and told["licence"] == "MIT" and told["sources"][0]["prompts"] == 5
    assert {name: split["examples"] for name, split in told["splits"].items()} == {"train": 3, "val": 1}
    assert said["asked"] == said["kept"] == 4 and said["dropped"] == {}
    assert said["prompt_tokens"] == sum(map(len, teacher.asked))
    assert said["cost"] == said["prompt_tokens"] + 2 * said["completion_tokens"]
    assert sorted(os.listdir(tmp_path)) == ["out", "prompts.jsonl"]


def test_a_text_file_and_raw_completions(tmp_path):
    path = prompts_file(tmp_path, ["One", "", "Two ", "One"], "prompts.txt")
    with Teacher(answer=lambda prompt: " and more\n") as teacher:
        out = ask(tmp_path, teacher, path, "--raw", "--val_fraction", 0)
    assert [(r["prompt"], r["completion"]) for r in lines(out / "train.jsonl")] == [
        ("One", " and more\n"), ("Two ", " and more\n")]
    assert not (out / "val.jsonl").exists() and "messages" not in teacher.requests[0][2]


def test_what_is_not_worth_learning_is_listed_with_the_reason(tmp_path):
    texts = {"Empty?": " ", "Shy?": "I'm sorry, but I can't help with that.", "Label?": "Yes.", "Label again?": "Yes."}
    faults = {"Long?": [{"finish_reason": "length"}] * 2, "Forbidden?": [{"finish_reason": "content_filter"}] * 2,
              "Refused?": [{"message": {"content": None, "refusal": "No."}}] * 2,
              "Null?": [{"message": {"role": "assistant", "content": None}}] * 2}
    prompts = [{"prompt": p} for p in [*texts, *faults, "Well?", "well? "]]
    with Teacher(faults, answer=lambda prompt: texts.get(prompt, "It is well.")) as teacher:
        out = ask(tmp_path, teacher, prompts)
        kept = ask(tmp_path, teacher, prompts, "--keep_truncated", out="kept")
    assert reasons(out) == {"Empty?": "empty", "Shy?": "refused", "Long?": "truncated", "Forbidden?": "refused",
                            "Refused?": "refused", "Null?": "empty", "well? ": "duplicate"}
    assert figures(out)["kept"] == 3 and figures(out)["dropped"] == collections.Counter(reasons(out).values())
    assert figures(kept)["kept"] == 4 and "truncated" not in reasons(kept).values()


def test_the_student_learns_from_it(tmp_path):
    examples = pytest.importorskip("examples")
    with Teacher() as teacher:
        out = ask(tmp_path, teacher, some(10))
    assert len(examples.read_records(str(out / "train.jsonl"))) == 9


@pytest.mark.parametrize("line, error", [
    ('{"prompt": 3}', "'prompt' is not"), ('{"prompt": ""}', "'prompt' is empty"), ("{", "property name"),
    ("[]", "expected an object"), ('{"text": "a"}', "expected an object"), ('{"prompt": "\\ud800"}', "surrogate"),
    ('{"messages": []}', "not a list"), ('{"messages": [{"role": "assistant", "content": "a"}]}', "not a list"),
    ('{"messages": [{"role": "system", "content": "a"}]}', "not the user's"), ('{"messages": "a"}', "not a list"),
    ('{"messages": [{"role": "user"}]}', "needs a role"), ('{"messages": null}', "not a list"),
    (b"\xff", "utf-8")])
def test_lines_that_cannot_be_read_are_named(tmp_path, line, error):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n' + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with Teacher() as teacher, pytest.raises(ValueError, match="prompts.jsonl:2: .*" + error):
        ask(tmp_path, teacher, str(path))
    assert not teacher.requests and os.listdir(tmp_path) == ["prompts.jsonl"]


def test_an_empty_answer_at_the_end_of_the_messages_is_ignored(tmp_path):
    messages = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": ""}]
    with Teacher() as teacher:
        ask(tmp_path, teacher, [{"messages": messages}])
    assert teacher.asked == {"A?": 1}


# Trouble


@pytest.mark.parametrize("fault", ["500", "503", "reset", "cut", "short", "no choices", "hang", "408",
                                   {"message": {"content": ["?"]}}, {"message": "?"}])
def test_what_may_be_better_later_is_asked_again(tmp_path, fault):
    with Teacher({"Question 3?": [fault, fault], "Question 5?": [fault]}) as teacher:
        out = ask(tmp_path, teacher, some(8), "--timeout", 0.2, "--val_fraction", 0)
    assert teacher.asked == {f"Question {i}?": 1 + 2 * (i == 3) + (i == 5) for i in range(8)}
    assert [r["meta"]["line"] for r in lines(out / "train.jsonl")] == [*range(1, 9)]
    assert len(teacher.connections) <= 8 + 3


def test_after_a_429_nobody_asks_before_the_time_that_it_names(tmp_path):
    with Teacher({"Question 9?": ["429 1"]}, latency=0.02) as teacher:
        ask(tmp_path, teacher, some(30), "--concurrency", 2)
    refused = next(at for at, prompt, _ in teacher.requests if prompt == "Question 9?")
    assert not [at for at, *_ in teacher.requests if refused + 0.1 < at < refused + 1.0]  # one may be under way
    assert teacher.asked["Question 9?"] == 2 and sum(teacher.asked.values()) == 31


def test_retry_after():
    soon = distill.email.utils.formatdate(time.time() + 100, usegmt=True)
    assert [distill.seconds_of(t) for t in ("3", "0.5", "", "soon", "-1", "99999")] == [3, 0.5, 0, 0, 0, 3600]
    assert 98 < distill.seconds_of(soon) <= 100 and distill.seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_prompt_that_fails_in_the_end_stops_no_other_and_is_asked_next_time(tmp_path):
    with Teacher({"Question 3?": ["500"] * 3}) as teacher:
        with pytest.raises(ValueError, match=r"1 of 8 prompts failed \(line 4: .* 500"):
            ask(tmp_path, teacher, some(8), "--retries", 2)
        assert not (tmp_path / "out").exists()
        out = ask(tmp_path, teacher, some(8), "--retries", 2)
    assert teacher.asked == {f"Question {i}?": 1 + 3 * (i == 3) for i in range(8)} and figures(out)["kept"] == 8


def test_a_teacher_that_is_not_there_is_not_asked_for_ever(tmp_path):
    with Teacher() as teacher:
        pass
    with pytest.raises(ValueError, match="does not answer .*Connection refused"):
        ask(tmp_path, teacher, some(1000), "--retries", 1)


@pytest.mark.parametrize("fault, error", [
    ("401", "check --api_key_env"), ("403", "check --api_key_env"), ("404", "check --teacher"), ("400", "to line 1"),
    ("301", "check --teacher"), ("429 insufficient_quota", "check your account")])
def test_what_will_not_be_better_later_stops_at_once(tmp_path, fault, error, monkeypatch, capsys):
    monkeypatch.setenv("ORACLE_KEY", KEY)
    with Teacher({"*": [fault] * 99}) as teacher, pytest.raises(ValueError, match=error) as caught:
        ask(tmp_path, teacher, some(30), "--api_key_env", "ORACLE_KEY", "--concurrency", 1)
    assert len(teacher.requests) == 1 and "***" in str(caught.value)
    everything = str(caught.value) + capsys.readouterr().out + "".join(
        p.read_text() for p in (tmp_path / "out.partial").iterdir())
    assert KEY not in everything


def test_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("ORACLE_KEY", KEY + "\n")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("STRANGE_KEY", "sécret")
    with Teacher(key=KEY) as teacher:
        with pytest.raises(ValueError, match="401"):  # a key is for whom it is meant for
            ask(tmp_path, teacher, some(3))
        for name in ("NO_SUCH_KEY", "STRANGE_KEY"):
            with pytest.raises(ValueError, match=f"variable {name}$"):
                ask(tmp_path, teacher, some(3), "--api_key_env", name)
        out = ask(tmp_path, teacher, some(3), "--api_key_env", "ORACLE_KEY")
    assert not [p for p in out.iterdir() if KEY in p.read_text()]


def test_a_prompt_that_the_teacher_will_not_take_is_dropped_when_others_were_answered(tmp_path):
    with Teacher({"Question 6?": ["400"]}) as teacher:
        out = ask(tmp_path, teacher, some(8), "--concurrency", 1)
    assert reasons(out) == {"Question 6?": "rejected"} and teacher.asked["Question 6?"] == 1
    assert "answered 400" in lines(out / "dropped.jsonl")[0]["error"]


def test_models_that_call_the_limit_otherwise(tmp_path):
    with Teacher({"*": ["400 use max_completion_tokens"] * 8}, latency=0.05) as teacher:
        out = ask(tmp_path, teacher, some(9), "--concurrency", 8)
    assert figures(out)["kept"] == 9 and "max_tokens" not in teacher.requests[-1][2]


@pytest.mark.parametrize("flags, error", [
    (["--teacher", "http://user:secret@host/v1"], "give an address"), (["--teacher", "http://h/v1"], "--model"),
    (["--teacher", "nowhere"], "neither an address nor a checkpoint's"),
    (["--teacher", "http://h/v1", "--model", "m", "--raw", "--system", "s"], "--system")])
def test_flags_that_cannot_be(tmp_path, flags, error):
    parser = cli.Parser("prepare.py distill")
    distill.add_flags(parser)
    path = prompts_file(tmp_path, some(1))
    with pytest.raises(ValueError, match=error) as caught:
        distill.run(parser.parse_args([path, "--out", str(tmp_path / "out"), *flags]))
    assert "secret" not in str(caught.value) and os.listdir(tmp_path) == ["prompts.jsonl"]


# Ends


@pytest.mark.slow
def test_killed_and_continued(tmp_path):
    """However often it is killed: whoever was answered is not asked again, and what comes out is the same."""
    path = prompts_file(tmp_path, some(300))
    with Teacher({f"Question {i}?": ["500"] for i in range(0, 300, 9)}, latency=0.02) as teacher:
        for n in (60, 150):
            process = start(tmp_path, teacher, path)
            wait_until(lambda n=n: len(teacher.asked) >= n)
            process.kill()
            process.communicate()
            answers = tmp_path / "out.partial" / "answers.jsonl"
            whole = answers.read_bytes()
            kept = {json.loads(line)["text"] for line in whole.splitlines()}
            answers.write_bytes(whole + b'{"key": "torn')
            before = collections.Counter(teacher.asked)
            assert n - 9 <= len(kept)
        process = start(tmp_path, teacher, path)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        again = [p for p in before if teacher.answer(p) in kept and teacher.asked[p] > before[p]]
        assert not again and len(teacher.asked) == 300
        assert sum(teacher.asked.values()) <= 300 + 34 + 2 * 8  # those under way at a kill, whose answers came nowhere
        undisturbed = ask(tmp_path, teacher, path, out="undisturbed")
    assert content(tmp_path / "out") == content(undisturbed) and figures(undisturbed)["kept"] == 300
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_the_teacher_hangs(tmp_path, number, code):
    with Teacher({f"Question {i}?": ["hang"] for i in range(20, 40)}) as teacher:
        process = start(tmp_path, teacher, prompts_file(tmp_path, some(40)))
        wait_until(lambda: len(teacher.asked) == 28)
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == code and "same command again to continue" in output and "Traceback" not in output
        assert len((tmp_path / "out.partial" / "answers.jsonl").read_text().splitlines()) == 20


def test_one_at_a_time_and_with_the_same_flags(tmp_path, monkeypatch):
    with Teacher({"Question 1?": ["500"]}) as teacher:
        with pytest.raises(ValueError, match="1 of 3"):
            ask(tmp_path, teacher, some(3), "--retries", 0)
        with pytest.raises(ValueError, match="other flags"):
            ask(tmp_path, teacher, some(3), "--temperature", 1)
        with open(tmp_path / "out.partial" / "lock", "w") as lock:
            distill.fetch.lock(lock, "")
            with monkeypatch.context() as m, pytest.raises(ValueError, match="another prepare.py distill is at work"):
                m.setattr(distill.fetch, "time", types.SimpleNamespace(sleep=lambda seconds: None))  # it waits 5 s
                ask(tmp_path, teacher, some(3))
        ask(tmp_path, teacher, some(4), "--keep_truncated", "--concurrency", 2)  # which change no answer
        with pytest.raises(ValueError, match="out exists already"):
            ask(tmp_path, teacher, some(4))
    assert teacher.asked == {"Question 0?": 1, "Question 1?": 2, "Question 2?": 1, "Question 3?": 1}


# A checkpoint for a teacher




# A checkpoint for a teacher


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch

    from model import GPT, GPTConfig
    from tokenizer import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["What is the question, and what is the answer to it?"] * 9, 300)
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, block_size=64, n_layer=1, n_head=2, n_embd=16))
    path = tmp_path_factory.mktemp("teacher") / "checkpoint"
    model.save_pretrained(str(path), tokenizer)
    return path


def test_a_checkpoint_teaches_and_what_it_says_does_not_depend_on_an_interruption(tmp_path, checkpoint, monkeypatch):
    prompts = [*some(9), {"messages": [{"role": "user", "content": "And?"}]}, {"prompt": "too long " * 20}]
    flags = ["--max_new_tokens", 12, "--concurrency", 4, "--keep_truncated", "--seed", 5, "--val_fraction", 0]
    whole = ask(tmp_path, checkpoint, prompts, *flags, out="whole")
    save, calls = distill.Answers.save, []

    def interrupted(self, prompt, answer):
        calls.append(prompt)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return save(self, prompt, answer)

    monkeypatch.setattr(distill.Answers, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, checkpoint, prompts, *flags)
    out = ask(tmp_path, checkpoint, prompts, *flags)
    assert content(out) == content(whole) and len(calls) == 11
    records, said = lines(out / "train.jsonl"), figures(out)
    assert {r["meta"]["finish"] for r in records} <= {"stop", "length"} and said["completion_tokens"] > 50
    assert [r["messages"][0]["content"] for r in records if "messages" in r] == ["And?"]
    assert [r["reason"] for r in lines(out / "dropped.jsonl")].count("rejected") == 1


def test_a_checkpoint_that_stops_by_itself(tmp_path, checkpoint, monkeypatch):
    import torch

    import sample

    def generate(model, idx, max_new_tokens, *_, stop_tokens, **__):
        new = torch.full((len(idx), max_new_tokens), 70)
        new[0, 5:] = stop_tokens[0]
        return torch.cat([idx, new], 1)

    monkeypatch.setattr(sample.checkpoint.GPT, "generate", generate)
    out = ask(tmp_path, checkpoint, some(3), "--max_new_tokens", 12, "--val_fraction", 0)
    assert [r["meta"]["line"] for r in lines(out / "train.jsonl")] == [1]
    assert [r["reason"] for r in lines(out / "dropped.jsonl")] == ["truncated"] * 2
    assert figures(out)["completion_tokens"] == 5 + 12 + 12


def test_an_answer_that_cannot_be_read_does_not_show_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("ORACLE_KEY", KEY)
    with Teacher({"*": ["no choices"] * 9}) as teacher, pytest.raises(ValueError, match="overloaded") as caught:
        ask(tmp_path, teacher, some(1), "--api_key_env", "ORACLE_KEY", "--retries", 0)
    assert KEY not in str(caught.value) and "***" in str(caught.value)


def test_a_teacher_that_does_not_count(tmp_path):
    with Teacher({"Question 1?": [{"finish_reason": None}]}, usage=None) as teacher:
        out = ask(tmp_path, teacher, some(5), "--price_out", 3)
    assert figures(out)["no_usage"] == figures(out)["kept"] == 5 and figures(out)["cost"] == 0


def test_a_full_disk_stops_it_and_nothing_is_lost(tmp_path, monkeypatch):
    save, calls = distill.Answers.save, []

    def full(self, prompt, answer):
        calls.append(prompt)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return save(self, prompt, answer)

    with Teacher() as teacher:
        with monkeypatch.context() as m, pytest.raises(OSError, match="No space"):
            m.setattr(distill.Answers, "save", full)
            ask(tmp_path, teacher, some(40), "--concurrency", 2)
        answers = tmp_path / "out.partial" / "answers.jsonl"
        first, *rest = answers.read_bytes().splitlines(keepends=True)
        answers.write_bytes(b"\0" * 99 + b"\n" + b"".join(rest))  # and a power cut
        out = ask(tmp_path, teacher, some(40))
    assert figures(out)["kept"] == 40 and sum(teacher.asked.values()) <= 43


def test_when_all_is_dropped_other_flags_may_keep_it_without_asking_again(tmp_path):
    with Teacher({"*": [{"finish_reason": "length"}] * 9}) as teacher:
        with pytest.raises(ValueError, match="no answer is worth learning"):
            ask(tmp_path, teacher, some(9))
        out = ask(tmp_path, teacher, some(9), "--keep_truncated")
    assert figures(out)["kept"] == 9 and sum(teacher.asked.values()) == 9
