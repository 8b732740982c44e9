"""The downloader against a small EDGAR that misbehaves: filings whole or absent, a resumed run equal to a clean one."""
import datetime
import gzip
import http.client
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest
from conftest import ROOT, SHARED
from edgar_server import FAULTS, EdgarServer, index, make_filings

import cli
import edgar
import fetch

FILINGS = make_filings(24)
ANNUAL = [f for f in FILINGS if f["form"] in ("10-K", "10-K405")]
AGENT = "Jane Doe jane@example.com"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    for name, seconds in dict(STOP=0.7, BACKOFF=0.01, TIMEOUT=2.0, DEADLINE=0.6).items():
        monkeypatch.setattr(fetch, name, seconds)


def parse(*flags):
    parser = cli.Parser("prepare.py edgar")
    fetch.add_flags(parser)
    return parser.parse_args([*map(str, flags)])


def go(server, out, *flags):
    """prepare.py edgar, in this process."""
    fetch.run(parse("--out", out, "--user_agent", AGENT, "--base_url", server.url, "--requests_per_second", 1000,
                    "--years", "2021-2022", *flags))


def result(out):
    """What a run has left, in a form to be compared: the files, and what the log says of them."""
    log = [e for e in map(json.loads, (out / "fetch.jsonl").read_text().splitlines()) if e.get("status") != 404]
    files = {str(path.relative_to(out)): path.read_bytes() for path in (out / "filings").rglob("*") if path.is_file()}
    about = {(e["path"], e["sha256"], e["bytes"], e["form"], e["cik"]) for e in log}
    assert len(about) == len(log), "a filing stands twice in the log"
    return files, about


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A run in which nothing goes wrong."""
    out = tmp_path_factory.mktemp("clean") / "out"
    with EdgarServer(FILINGS) as server:
        go(server, out)
    return result(out)


def only_whole_files(out, clean):
    for path in (out / "filings").rglob("*.txt"):
        assert path.read_bytes() == clean[0][str(path.relative_to(out))]
    assert not list(out.rglob("*.tmp"))


def fails(*flags, says, **kwargs):
    with pytest.raises(ValueError) as caught:
        go(*flags, **kwargs) if isinstance(flags[0], EdgarServer) else fetch.run(parse(*flags))
    message = cli.in_words(caught.value)
    assert says in message and len(message) < 400, message


# What is downloaded


def test_a_clean_run(tmp_path, capsys):
    with EdgarServer(FILINGS) as server:
        go(server, tmp_path)
        files, about = result(tmp_path)
        assert len(files) == len(about) == len(ANNUAL)
        assert {r.agent for r in server.requests} == {AGENT}
        assert len(server.requests) == len(ANNUAL) + 8, "one request each, and one for each of eight quarters"
        assert len({r.connection for r in server.requests}) <= 2 * fetch.CONNECTIONS, "connections are kept alive"
        out = capsys.readouterr().out
        assert server.url in out and f"{len(ANNUAL)} to fetch" in out and "minutes" in out
        go(server, tmp_path)  # nothing is asked for twice
        assert len(server.requests) == len(ANNUAL) + 8
    for filing in ANNUAL:
        path = tmp_path / "filings" / f"{filing['ciks'][0]:010d}" / f"{filing['accession']}.txt"
        text = path.read_text()
        doc = edgar.read_filing(path)
        assert doc["meta"]["accession"] == filing["accession"] and doc["meta"]["form"] == filing["form"]
        assert doc["meta"]["cik"] == f"{filing['ciks'][0]:010d}" and "Item 1. Business" in doc["text"]
        assert ("<TYPE>EX-13.1" in text) == ("EX-13.1" in [kind for kind, _, _ in filing["documents"]])
        assert "GRAPHIC" not in text and "EX-21" not in text
        assert text.endswith(("</SEC-DOCUMENT>\n", "-----END PRIVACY-ENHANCED MESSAGE-----\n"))
    entry = json.loads((tmp_path / "fetch.jsonl").read_text().splitlines()[0])
    assert set(entry) == {"url", "time", "sha256", "bytes", "path", "form", "cik", "company", "filed", "accession"}
    source = json.loads((tmp_path / "source.json").read_text())
    assert source["name"] == "SEC EDGAR" and source["command"]["years"] == [2021, 2022] and AGENT not in str(source)


def test_limit_is_a_nested_sample_whatever_the_order(tmp_path):
    filings = make_filings(60)
    names = {}
    for limit, order in ((5, filings), (15, filings[::-1])):
        with EdgarServer(order) as server:
            go(server, tmp_path / str(limit), "--limit", limit)
        names[limit] = {name.split("/")[-1] for name in result(tmp_path / str(limit))[0]}
    assert len(names[5]) == 5 and len(names[15]) == 15 and names[5] < names[15]


def test_co_registrants_share_one_file(tmp_path):
    shared = [f for f in ANNUAL if len(f["ciks"]) == 2]
    assert shared
    with EdgarServer(FILINGS) as server:
        go(server, tmp_path)
        go(server, tmp_path, "--ciks", ",".join(str(f["ciks"][1]) for f in shared))  # already there under the other CIK
        for filing in shared:
            assert len(server.asked(filing["accession"] + ".txt")) == 1


def test_companies(tmp_path):
    (tmp_path / "ciks.txt").write_text("# my companies\n9000001\n0009000003, CIK0009000005\n")
    with EdgarServer(FILINGS) as server:
        go(server, tmp_path / "a", "--ciks", tmp_path / "ciks.txt", "--forms", "10-K,10-Q")
        assert result(tmp_path / "a")[0].keys() == {
            f"filings/{f['ciks'][0]:010d}/{f['accession']}.txt" for f in FILINGS if f["ciks"][0] % 10 in (1, 3, 5)}
        go(server, tmp_path / "b", "--tickers", "t9000001,T9000003", "--sic", "7302")
        assert {name[:18] for name in result(tmp_path / "b")[0]} == {"filings/0009000003"}
        fails(server, tmp_path / "c", "--tickers", "NOPE", says="NOPE")
        fails(server, tmp_path / "c", "--ciks", "4711", says="no filing matches")
        server.faults = {"company_tickers": "html"}
        fails(server, tmp_path / "e", "--tickers", "T9000001", says="the list of tickers could not be read")
        server.faults = {}
        go(server, tmp_path / "d", "--sic", "7301,7303")
        names = str(result(tmp_path / "d")[0].keys())
        assert {f["sic"] for f in FILINGS if f["accession"] in names} == {"7301", "7303"}
        before = len(server.asked("/submissions/"))
        go(server, tmp_path / "d", "--sic", "73")
        assert len(server.asked("/submissions/")) == before, "industries are cached"
        assert len(result(tmp_path / "d")[0]) == len(ANNUAL)


def test_years_default_to_the_last_three(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "today", lambda: datetime.date(2024, 5, 1))
    with EdgarServer(FILINGS) as server:
        fetch.run(parse("--out", tmp_path, "--user_agent", AGENT, "--base_url", server.url,
                        "--requests_per_second", 1000))
        assert {r.path[:37] for r in server.asked("full-index")} == {
            f"/Archives/edgar/full-index/{year}/QTR{q}/" for year in (2021, 2022, 2023) for q in (1, 2, 3, 4)}


def test_the_current_quarter_is_asked_for_again_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "today", lambda: datetime.date(2022, 5, 1))
    monkeypatch.setattr(fetch.time, "time", lambda: datetime.datetime(2022, 5, 1).timestamp())
    with EdgarServer(FILINGS) as server:
        go(server, tmp_path, "--years", "2022")
        assert len(server.asked("full-index")) == 2, "no quarter that is yet to come"
        for path, age in ((tmp_path / "index/2022-QTR1.idx.gz", 1.5), (tmp_path / "index/2022-QTR2.idx.gz", 0.5)):
            os.utime(path, (time.time() - age * fetch.DAY,) * 2)
        go(server, tmp_path, "--years", "2022")
        assert len(server.asked("full-index")) == 2
        os.utime(tmp_path / "index/2022-QTR2.idx.gz", (time.time() - 1.5 * fetch.DAY,) * 2)
        go(server, tmp_path, "--years", "2022")
        assert len(server.asked("QTR1")) == 1 and len(server.asked("QTR2")) == 2


# Faults


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault(fault, tmp_path, clean):
    with EdgarServer(FILINGS, {".idx": [fault] * 2, "/data/": [fault] * 9}) as server:
        go(server, tmp_path)
        assert len(server.asked("/data/")) >= len(ANNUAL) + 9
    assert result(tmp_path) == clean


@pytest.mark.parametrize("seed", range(3))
def test_any_mix_of_faults_and_runs_ends_as_a_clean_run(seed, tmp_path, clean, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "ATTEMPTS", 3)
    with EdgarServer(FILINGS, fault_rate=0.4, seed=seed) as server:
        for _ in range(30):
            try:
                go(server, tmp_path)
                break
            except ValueError as e:
                assert "run the same command again" in str(e)
            only_whole_files(tmp_path, clean)
    assert result(tmp_path) == clean


def test_some_fail_the_others_arrive(tmp_path, clean, capsys):
    with EdgarServer(FILINGS, {ANNUAL[0]["accession"]: "503"}) as server:
        fails(server, tmp_path, says=f"1 of {len(ANNUAL)} filings failed; run the same command again")
        assert len(server.asked(ANNUAL[0]["accession"])) == fetch.ATTEMPTS
        assert f"failed: {ANNUAL[0]['accession']}" in capsys.readouterr().out
        only_whole_files(tmp_path, clean)
        server.faults.clear()
        go(server, tmp_path)
        assert len(server.asked("/data/")) == fetch.ATTEMPTS + len(ANNUAL)
    assert result(tmp_path) == clean


def test_an_index_that_can_not_be_read_ends_the_run(tmp_path):
    with EdgarServer(FILINGS, {"2021/QTR2": "html"}) as server:
        fails(server, tmp_path, says="the index of 2021 QTR2")
        assert not server.asked("/data/")


def test_redirects_are_not_followed(tmp_path, clean, capsys):
    with EdgarServer(FILINGS, {"/data/": ["redirect"] * 3}) as server:
        go(server, tmp_path)
        assert result(tmp_path) == clean
        server.faults = {"/data/": "elsewhere"}
        fails(server, tmp_path / "b", says="failed")
        assert ": status 301\n" in capsys.readouterr().out


@pytest.fixture
def sent(monkeypatch):
    """For every request that leaves: how many seconds of a stop were left then."""
    clients, sent = [], []

    class Watched(fetch.Client):
        def __init__(self, *args):
            super().__init__(*args)
            clients.append(self)

    def request(connection, *args, **kwargs):
        sent.append(clients[-1].resume - time.monotonic())
        return plain(connection, *args, **kwargs)

    plain = http.client.HTTPConnection.request
    monkeypatch.setattr(fetch, "Client", Watched)
    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    return sent


@pytest.mark.parametrize("status", ["403", "429"])
def test_a_stop_stops_everything(status, tmp_path, clean, capsys, sent):
    with EdgarServer(FILINGS, {ANNUAL[4]["accession"]: [status]}) as server:
        go(server, tmp_path)
        [stopped] = [r.time for r in server.requests if r.what == status]
        under_way = [r for r in server.requests if stopped < r.time < stopped + fetch.STOP]
    assert len(sent) == len(ANNUAL) + 9 and max(sent) <= 0, "a request left during the stop"
    assert len(under_way) < fetch.CONNECTIONS
    assert f"answered {status}: no request until" in capsys.readouterr().out
    assert result(tmp_path) == clean


def test_stops_among_other_faults(tmp_path, clean, monkeypatch, sent):
    monkeypatch.setattr(fetch, "STOP", 0.15)
    faults = ["429", "", "503", "", "403", "reset", "", "cut", "429", "403", ""]
    with EdgarServer(FILINGS, {"/data/": faults * 2}) as server:
        go(server, tmp_path)
    assert max(sent) <= 0 and result(tmp_path) == clean


def test_nothing_is_sent_while_it_is_unclear_what_a_403_means(tmp_path, clean, sent, capsys):
    with EdgarServer(FILINGS, {ANNUAL[4]["accession"]: ["403, slow body"]}) as server:
        go(server, tmp_path)
        [refused] = [r.time for r in server.requests if r.what == "403, slow body"]
        assert sum(refused < r.time < refused + 0.5 for r in server.requests) < fetch.CONNECTIONS
    assert "no request until" in capsys.readouterr().out and max(sent) <= 0 and result(tmp_path) == clean


def test_a_403_for_what_is_not_there_is_no_stop(tmp_path, capsys):
    """EDGAR's storage answers so for the index of a quarter that has only begun."""
    with EdgarServer(FILINGS, {"2021/QTR3": "absent", ANNUAL[0]["accession"]: "absent"}) as server:
        go(server, tmp_path)
    out = capsys.readouterr().out
    assert "no index of 2021 QTR3" in out and "no request until" not in out


def test_three_stops_in_a_row_are_enough(tmp_path, clean, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "STOP", 0.2)
    with EdgarServer(FILINGS, {"/data/": "429"}) as server:
        fails(server, tmp_path, says="refuses")
        assert len(server.asked("/data/")) <= 4 * fetch.CONNECTIONS
        assert capsys.readouterr().out.count("no request until") == 3
        server.faults = {"/data/": ["", "", "403"] * 5}  # with successes in between it goes on
        go(server, tmp_path)
    assert result(tmp_path) == clean


def test_a_longer_retry_after_is_honoured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "STOP", 0.1)
    for asked, least in (("1", 1.0), ("soon", 0.1)):
        with EdgarServer(FILINGS, {"/data/": ["429"]}, retry_after=asked) as server:
            go(server, tmp_path / asked)
            [stopped] = [r.time for r in server.requests if r.what == "429"]
            assert sum(stopped < r.time < stopped + least for r in server.requests) < fetch.CONNECTIONS


def test_the_rate_at_the_server(tmp_path):
    with EdgarServer(make_filings(90, size=300), fault_rate=0.1, fault_kinds=["503", "reset", "cut"]) as server:
        go(server, tmp_path, "--requests_per_second", 20)
        times = sorted(r.time for r in server.requests)
    assert max(sum(begin <= t < begin + 1 for t in times) for begin in times) <= 20


def test_missing_filings_are_recorded_and_not_asked_for_again(tmp_path, capsys):
    with EdgarServer(FILINGS) as server:
        for path in list(server.pages):
            if ANNUAL[0]["accession"] in path or ANNUAL[0]["accession"].replace("-", "") in path:
                del server.pages[path]
        go(server, tmp_path)
        assert "missing 1" in capsys.readouterr().out
        [line] = [line for line in map(json.loads, (tmp_path / "fetch.jsonl").read_text().splitlines())
                  if line.get("status") == 404]
        cik, accession = ANNUAL[0]["ciks"][0], ANNUAL[0]["accession"]
        assert line["accession"] == accession
        assert line["url"] == f"{server.url}/Archives/edgar/data/{cik}/{accession}.txt"
        before = len(server.requests)
        go(server, tmp_path)
        assert len(server.requests) == before
    assert len(result(tmp_path)[0]) == len(ANNUAL) - 1


@pytest.mark.parametrize("by", ["index", "cik"])
def test_without_a_full_submission_the_folder_serves(by, tmp_path):
    filing = next(f for f in ANNUAL if "EX-13.1" in [kind for kind, _, _ in f["documents"]])
    cik, folder = filing["ciks"][0], filing["accession"].replace("-", "")
    with EdgarServer(FILINGS, {filing["document"]: ["cut", "503"]}) as server:
        for cik in filing["ciks"]:
            del server.pages[f"/Archives/edgar/data/{cik}/{filing['accession']}.txt"]
        go(server, tmp_path, *(["--ciks", filing["ciks"][0]] if by == "cik" else []))
        assert not server.asked(folder + "/logo") and not server.asked(folder + "/ex21")
    [path] = tmp_path.rglob(f"{filing['accession']}.txt")
    doc = edgar.read_filing(path)
    assert doc["meta"]["documents"] == [filing["form"], "EX-13"] and doc["meta"]["cik"] == f"{filing['ciks'][0]:010d}"
    assert "Item 1. Business" in doc["text"] and "Annual report." in doc["text"]
    [entry] = [e for e in map(json.loads, (tmp_path / "fetch.jsonl").read_text().splitlines())
               if e["accession"] == filing["accession"]]
    assert entry["url"].endswith(f"{folder}/{filing['document']}")


# Whole or not at all


DAMAGE = {
    "a torn line": lambda out, path, log: log.write_bytes(log.read_bytes()[:-30]),
    "a line of garbage": lambda out, path, log: log.write_bytes(log.read_bytes().replace(b'{"url"', b"\0\0\0\0", 1)),
    "no log": lambda out, path, log: log.unlink(),
    "an empty log": lambda out, path, log: log.write_bytes(b""),
    "a file cut short": lambda out, path, log: os.truncate(path, 100),
    "a file changed": lambda out, path, log: path.write_bytes(path.read_bytes().replace(b"widgets", b"gadgets")),
    "a file gone": lambda out, path, log: path.unlink(),
    "left-over temporary files": lambda out, path, log: [
        p.with_name(p.name + ".tmp").write_bytes(b"half") for p in (log, out / "index/2021-QTR1.idx.gz", path)],
    "no index": lambda out, path, log: (out / "index/2021-QTR1.idx.gz").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_mended_by_the_next_run(damage, tmp_path, clean):
    with EdgarServer(FILINGS) as server:
        go(server, tmp_path)
        path = sorted((tmp_path / "filings").rglob("*.txt"))[3]
        DAMAGE[damage](tmp_path, path, tmp_path / "fetch.jsonl")
        before = len(server.asked("/data/"))
        go(server, tmp_path)
        again = len(server.asked("/data/")) - before
    assert result(tmp_path) == clean and not list(tmp_path.rglob("*.tmp"))
    assert again == {"no log": len(ANNUAL), "an empty log": len(ANNUAL), "left-over temporary files": 0,
                     "no index": 0}.get(damage, 1)


def test_a_damaged_index_in_the_cache_is_fetched_again(tmp_path, clean):
    with EdgarServer(FILINGS) as server:
        go(server, tmp_path)
        os.truncate(tmp_path / "index/2021-QTR1.idx.gz", 150)
        go(server, tmp_path)
    assert result(tmp_path) == clean


START = ("import sys; sys.path[:0] = sys.argv.pop(1).split(';'); sys.argv[0] = 'prepare.py'; import cli, fetch; "
         "fetch.BACKOFF = 0.01; parser = cli.Parser('prepare.py'); fetch.add_flags(parser); {before}"
         "cli.run(lambda: fetch.run(parser.parse_args()))")


def start(server, out, *flags, before=""):
    """prepare.py edgar in a process of its own."""
    command = [sys.executable, "-c", START.format(before=before), str(ROOT), "--out", out, "--user_agent", AGENT,
               "--base_url", server.url, "--years", "2021-2022", "--requests_per_second", 400, *flags]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("nothing happened for 20 s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run_at_once(number, tmp_path, clean):
    with EdgarServer(FILINGS, {f["accession"]: "drip" for f in ANNUAL[5:]}) as server:
        process = start(server, tmp_path)
        wait_until(lambda: len(server.asked("/data/")) > fetch.CONNECTIONS)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 128 + number and "run the same command again" in out and "Traceback" not in err
        assert len(server.asked("/data/")) < len(ANNUAL)
        only_whole_files(tmp_path, clean)
        server.faults.clear()
        go(server, tmp_path)
    assert result(tmp_path) == clean


def test_an_interrupt_during_a_stop(tmp_path):
    with EdgarServer(FILINGS, {"full-index": "429"}) as server:
        process = start(server, tmp_path)  # where a stop takes ten minutes
        assert "asking" in process.stdout.readline() and "no request until" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130


@pytest.mark.parametrize("full_at", ["a filing", "the log"])
def test_a_full_disk(full_at, tmp_path):
    limit = ("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
             "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); ")
    with EdgarServer(make_filings(24, size=4000 if full_at == "a filing" else 300)) as server:
        process = start(server, tmp_path, before=limit)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 2 and err.startswith("prepare.py: ") and "Traceback" not in err, err
        assert err.strip().count("\n") == 0 and str(tmp_path) in err
        assert not list(tmp_path.rglob("*.tmp"))
        lines = (tmp_path / "fetch.jsonl").read_text().split("\n")[:-1]  # the last one may be torn
        assert len(lines) > 5 if full_at == "the log" else not lines
        for line in map(json.loads, lines):
            assert (tmp_path / line["path"]).stat().st_size == line["bytes"]
        go(server, tmp_path)
        assert len(result(tmp_path)[0]) == len(result(tmp_path)[1]) > 9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment(seed, tmp_path):
    filings, rng = make_filings(150, size=30000), random.Random(seed)
    with EdgarServer(filings, fault_rate=0.1, fault_kinds=["503", "reset", "cut gzip"], latency=0.01) as server:
        go(server, tmp_path / "clean")
        whole = result(tmp_path / "clean")
        for _ in range(12):
            begun = len(server.requests)
            process = start(server, tmp_path / "out", "--requests_per_second", 150)
            wait_until(lambda: len(server.requests) > begun or process.poll() is not None)  # noqa: B023
            time.sleep(rng.random() * 0.3)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            for path in (tmp_path / "out").rglob("filings/*/*.txt"):
                assert path.read_bytes() == whole[0][str(path.relative_to(tmp_path / "out"))]
        go(server, tmp_path / "out")
    assert result(tmp_path / "out") == whole and not list(tmp_path.rglob("*.tmp"))


def test_two_at_once_in_one_folder(tmp_path):
    with EdgarServer(FILINGS, {"/data/": "drip"}) as server:
        process = start(server, tmp_path)
        wait_until(lambda: list(tmp_path.rglob("filings/*/*.tmp")))
        before = set(tmp_path.rglob("*"))
        fails(server, tmp_path, says="another prepare.py edgar")
        assert before <= set(tmp_path.rglob("*")), "the files of the other are not touched"
        process.kill()
        process.communicate()


# The parts


def cut_at_random(raw, rng):
    places = sorted(rng.randint(0, len(raw)) for _ in range(rng.randint(0, 30)))
    return [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True) if b > a]


def test_how_a_submission_is_cut_makes_no_difference():
    rng = random.Random(1)
    for filing in FILINGS:
        whole = b"".join(fetch.keep([filing["body"]], filing["form"]))
        expected = filing["body"]
        for kind, name, body in filing["documents"]:
            if kind in ("EX-21", "GRAPHIC", "EX-101.INS"):
                n = [name for _, name, _ in filing["documents"]].index(name) + 1
                dropped = f"<DOCUMENT>\n<TYPE>{kind}\n<SEQUENCE>{n}\n<FILENAME>{name}\n"
                dropped += f"<TEXT>\n{body}\n</TEXT>\n</DOCUMENT>\n"
                assert dropped.encode() in expected
                expected = expected.replace(dropped.encode(), b"")
        assert whole == expected
        for _ in range(30):
            assert b"".join(fetch.keep(cut_at_random(filing["body"], rng), filing["form"])) == whole
        bytewise = [filing["body"][i : i + 1] for i in range(len(filing["body"]))]
        assert b"".join(fetch.keep(bytewise, filing["form"])) == whole
    bare = b"<DOCUMENT>\n<TYPE>10-K\n<TEXT>\nyes\n</TEXT>\n</DOCUMENT>\n"
    more = bare + bare.replace(b"10-K", b"GRAPHIC") + bare.replace(b"10-K", b"EX-13")
    for cut in range(1, len(more)):
        assert b"".join(fetch.keep([more[:cut], more[cut:]], "10-K")) == bare + bare.replace(b"10-K", b"EX-13")


def test_the_main_document_need_not_come_first():
    def document(kind):
        return f"<DOCUMENT>\n<TYPE>{kind}\n<TEXT>\nthis is {kind}\n</TEXT>\n</DOCUMENT>\n"

    kinds = ["COVER", "EX-10", "10-K", "10-K", "EX-13", "ex-13.2", "EX-131x", "XML"]
    raw = "<SEC-DOCUMENT>x\n" + "".join(map(document, kinds)) + "</SEC-DOCUMENT>\n"
    kept = b"".join(fetch.keep([raw.encode()], "10-K")).decode()
    assert re.findall("this is (.*)", kept) == ["COVER", "10-K", "EX-13", "ex-13.2", "EX-131x"]


def test_what_is_no_whole_submission():
    good = FILINGS[0]["body"]
    for bad in (b"", b"<html>no</html>", good[:-30], good[: len(good) // 2], b"x" + good, good[:300]):
        with pytest.raises(fetch.Fault):
            list(fetch.keep([bad] if bad else [], "10-K"))


def test_memory_stays_small_for_a_large_submission():
    def chunks():
        yield b"<SEC-DOCUMENT>x\n<DOCUMENT>\n<TYPE>10-K\n<TEXT>\n"
        for _ in range(400):
            yield b"one endless line " * 8000
        yield b"\n</TEXT>\n</DOCUMENT>\n<DOCUMENT>\n<TYPE>GRAPHIC\n<TEXT>\n"
        for _ in range(400):
            yield b"M" * 60 + b"\nN" * 30000
        yield b"\n</TEXT>\n</DOCUMENT>\n</SEC-DOCUMENT>\n"

    tracemalloc.start()
    size = sum(map(len, fetch.keep(chunks(), "10-K")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 400 * 8000 * 17 and peak < 2 << 20


@pytest.mark.skipif(not SHARED.exists(), reason="the real samples of every decade are not here")
def test_real_submissions():
    for path in sorted((SHARED / "data/sgml_samples").glob("0*.*")):
        raw = path.read_bytes()
        form = re.search(rb"<TYPE>([^\n<]*)", raw)[1].decode()
        kept = b"".join(fetch.keep(cut_at_random(raw, random.Random(0)), form))
        assert kept.count(b"<DOCUMENT>") == kept.count(b"</DOCUMENT>") >= 1 and len(kept) <= len(raw)
        assert edgar.parse_filing(kept, path.name)["text"]


ROWS = [("10-K", "ACME   HOLDINGS  INC  /DE/", 1234, "2021-02-05", "edgar/data/1234/0001213900-21-007106.txt"),
        ("10-K405", "OLD CO", 20, "1997-03-05", "edgar/data/20/0000000020-97-000001.txt"),
        ("10-K405/A", "OLD CO", 20, "1997-04-05", "edgar/data/20/0000000020-97-000002.txt"),
        ("NT 10-K", "LATE 10-K CO", 30, "2021-02-05", "edgar/data/30/0000000030-21-000001.txt"),
        ("10-KSB", "10-K  FANS INC", 40, "2001-02-05", "edgar/data/40/0000000040-01-000001.txt"),
        ("10KSB40", "", 50, "1999-02-05", "edgar/data/50/0000000050-99-000001.txt"),
        ("10-KT", "LONG NAME " * 9, 60, "2011-02-05", "edgar/data/60/0000000060-11-000001.txt"),
        ("10-K/A", "ACME", 1234, "2021-03-05", "edgar/data/1234/0001213900-21-007107.txt"),
        ("10-12G", "NEW CO", 70, "2021-02-05", "edgar/data/70/0000000070-21-000001.txt"),
        ("10-Q", "ACME", 1234, "2021-05-05", "edgar/data/1234/0001213900-21-007108.txt"),
        ("10-KT405", "YEAR 2000", 2000, "1999-05-05", "edgar/data/2000/0001213900-99-007108.txt")]


def write(path, text):
    path.write_bytes(gzip.compress(text.encode("latin-1")))
    return path


@pytest.mark.parametrize("kind", ["form", "company", "master"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_index_traps(kind, newline, tmp_path):
    filings = [dict(form=form, company=company, ciks=[cik], filed=filed, accession=name[-24:-4])
               for form, company, cik, filed, name in ROWS]
    text = index(filings, kind).replace("\n10-Q", "\n\n   \n10-Q").replace("\n", newline)
    path = write(tmp_path / "x.gz", text)
    for forms, expected in (("10-K", {"10-K", "10-K405", "10-KSB", "10KSB40", "10-KT", "10-KT405"}),
                            ("10-K405", {"10-K405"}), ("10-k/a", {"10-K/A", "10-K405/A"}),
                            ("NT 10-K,10-Q", {"NT 10-K", "10-Q"})):
        found, unread = fetch.read_index(path, fetch.form_pattern(forms.split(",")))
        assert {f["form"] for f in found} == expected and not unread
        for f in found:
            [row] = [row for row in ROWS if row[4][-24:-4] == f["accession"]]
            assert (f["form"], f["company"], f["cik"], f["filed"]) == (row[0], row[1].strip(), row[2], row[3])


def test_index_of_other_widths_header_only_cut_and_none(tmp_path):
    wanted = fetch.form_pattern(["10-K"])
    narrow = ("Form Type Company Name CIK Date Filed File Name\n-----\n10-K      A CO   1 2021-01-01 edgar/data/1/"
              "0000000001-21-000001.txt\n10-K405   B CO 2 2021-01-01 edgar/data/2/0000000002-21-000001.txt\n"
              "10-K      lost row\n10-K405   TOUCHING MACHINES & TELEGRAPH GENERAL L P5011  2021-01-01  "
              "edgar/data/5011/0000000002-21-000007.txt\n10-K  cut\n")
    with pytest.raises(ValueError, match="middle"):
        fetch.read_index(write(tmp_path / "a", narrow), wanted)
    found, unread = fetch.read_index(write(tmp_path / "a", narrow + narrow.split("\n")[2]), wanted)
    assert [f["company"] for f in found] == ["A CO", "B CO", "TOUCHING MACHINES & TELEGRAPH GENERAL L P", "A CO"]
    assert unread == ["10-K      lost row", "10-K  cut"] and found[2]["cik"] == 5011
    for kind in ("form", "company", "master"):
        assert fetch.read_index(write(tmp_path / "b", index([], kind)), wanted) == ([], [])
        with pytest.raises(ValueError):
            fetch.read_index(write(tmp_path / "c", index(FILINGS, kind)[:-7]), wanted)
    with pytest.raises(ValueError):
        fetch.read_index(write(tmp_path / "d", "<html>\n<p>no\n</html>\n"), wanted)


@pytest.mark.skipif(not SHARED.exists(), reason="the real sample of an index is not here")
def test_real_index(tmp_path):
    text = (SHARED / "data/sgml_samples/badform.idx.txt").read_text()
    found, unread = fetch.read_index(write(tmp_path / "x", text), fetch.form_pattern(["1-A", "X-17A-5", "1-A POS"]))
    assert len(found) == 10 and not unread
    assert found[6] == dict(accession="9999999997-21-003146", cik=820694, form="X-17A-5", filed="2021-02-24",
                            company="UNITED PLANNERS' FINANCIAL SERVICES OF AMERICA A LIMITED PARTNER")


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_other_kinds_of_index(gone, tmp_path, clean, capsys):
    kinds = ["form.idx", "company.idx", "master.idx"]
    with EdgarServer(FILINGS) as server:
        for path in list(server.pages):
            if path.endswith(tuple(kinds[:gone])) and (gone < 3 or "2021/QTR3" in path):
                del server.pages[path]
        go(server, tmp_path)
        if gone < 3:
            assert result(tmp_path) == clean
        else:
            assert "no index of 2021 QTR3" in capsys.readouterr().out
            assert len(result(tmp_path)[0]) == sum(not "2021-07" <= f["filed"] < "2021-10" for f in ANNUAL)


@pytest.mark.skipif(not SHARED.exists(), reason="the real submissions JSON is not here")
def test_real_submissions_json(tmp_path):
    raw = (SHARED / "data/sgml_samples/submissions_CIK0000320193.json").read_bytes()
    with EdgarServer([]) as server:
        server.pages["/submissions/CIK0000320193.json"] = raw
        client = fetch.Client(server.url, AGENT, 1000)
        found = fetch.of_company(client, tmp_path, fetch.form_pattern(["10-K"]), range(2015, 2024), 320193)
    assert len(found) == 8 and found[0]["document"] == "aapl-20220924.htm" and found[0]["filed"] == "2022-10-28"


# Flags

FLAGS = {
    "no user agent": ([], "--user_agent"),
    "no e-mail address": (["--user_agent", "Jane Doe"], "e-mail"),
    "no name": (["--user_agent", "jane@example.com"], "--user_agent"),
    "e-mail without a domain": (["--user_agent", "Jane Doe jane@localhost"], "e-mail"),
    "a browser": (["--user_agent", "Mozilla/5.0 jane@example.com"], "browser"),
    "two lines": (["--user_agent", "Jane Doe\njane@example.com"], "plain"),
    "too fast": (["--requests_per_second", "11"], "--requests_per_second"),
    "too fast for the SEC by its name": (["--requests_per_second", "11", "--base_url", "https://www.sec.gov"], "10"),
    "rate of zero": (["--requests_per_second", "0"], "--requests_per_second"),
    "no URL": (["--base_url", "localhost:80"], "--base_url"),
    "a year before EDGAR": (["--years", "1980-1995"], "--years"),
    "a year to come": (["--years", "2999"], "--years"),
    "years downwards": (["--years", "2023-2021"], "--years"),
    "years in words": (["--years", "all"], "2021-2023"),
    "too many years": (["--years", "2021-99999999999"], "--years"),
    "a file of CIKs that is not there": (["--ciks", "nowhere.txt"], "nowhere.txt"),
    "a limit of zero": (["--limit", "0"], "--limit"),
    "a CIK that is none": (["--ciks", "apple"], "--ciks"),
    "a SIC that is none": (["--sic", "software"], "--sic"),
    "a ticker that is none": (["--tickers", "A B"], "--tickers"),
    "no form": (["--forms", ","], "--forms"),
    "unknown flag": (["--form", "10-K"], "--form"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags(case, tmp_path):
    flags, says = FLAGS[case]
    agent = [] if "user_agent" in str(flags) or not flags else ["--user_agent", AGENT]
    fails("--out", tmp_path / "out", *agent, *flags, says=says)
    assert not (tmp_path / "out").exists()


def test_names_that_would_leave_the_folder(tmp_path):
    for key, name in (("accessionNumber", "../../x"), ("primaryDocument", "../x?y=1")):
        with EdgarServer(FILINGS) as server:
            page = json.loads(server.pages["/submissions/CIK0009000001.json"])
            page["filings"]["recent"][key] = [name] * len(page["filings"]["recent"][key])
            page["filings"]["recent"]["form"] = ["10-K"] * len(page["filings"]["recent"]["form"])
            server.pages["/submissions/CIK0009000001.json"] = json.dumps(page).encode()
            if key == "accessionNumber":
                fails(server, tmp_path / "a" / "b", "--ciks", "9000001", says="accession number")
                assert not list(tmp_path.glob("*.txt")) and not list((tmp_path / "a").glob("*.txt"))
            else:
                go(server, tmp_path / "c", "--ciks", "9000001")


def test_nothing_matches_and_nobody_answers(tmp_path, monkeypatch):
    with EdgarServer(FILINGS) as server:
        fails(server, tmp_path, "--forms", "10-KX", says="no filing matches --forms 10-KX")
        fails(server, tmp_path, "--sic", "9999", says="--sic 9999")
    fails(server, tmp_path / "x", says="Connection refused")


def test_out_is_a_file(tmp_path):
    pathlib.Path(tmp_path / "file").write_text("x")
    with EdgarServer(FILINGS) as server, pytest.raises(OSError):
        go(server, tmp_path / "file")
