"""
Download filings from SEC EDGAR: politely, whole or not at all, and so that the same command continues what was begun.

    python prepare.py edgar --out data/filings --user_agent "Jane Doe jane@example.com" --years 2021-2023 --limit 200

    data/filings/filings/0000320193/0000320193-23-000106.txt    header, main document and EX-13 (the annual report to
                                                                shareholders) in EDGAR's own SGML, for edgar.read_filing
    data/filings/fetch.jsonl        a line per filing: where it is from, when, sha256; "status": 404 where there is none
    data/filings/index/             cached indexes, and beside it source.json: the source as a whole

The idea: EDGAR is one host that everybody shares. It wants to know who asks, allows 10 requests a second, and answers
403 or 429 to who asks for more, for ten minutes, and longer if one goes on (sec.gov/os/accessing-edgar-data). So every
request passes one gate, `Client.send`, which keeps the pace of all threads and lets nothing out during such a stop.

Everything else is distrust. An answer counts only if its length, its checksum and its last line are right; a file
appears under its name only when it is on disk; a line is in the log only after its file. A submission, which may be
hundreds of MB of spreadsheets and pictures, is filtered as it streams by.
"""
import argparse
import contextlib
import datetime
import gzip
import hashlib
import http.client
import json
import math
import os
import random
import re
import signal
import sys
import threading
import time
import urllib.parse
import zlib
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

import cli

STOP = 600.0  # seconds without any request after a 403 or 429, unless Retry-After asks for more
STOPS = 3  # so many stops in a row without a success, then we give up
ATTEMPTS = 6  # per request
BACKOFF = 1.0  # seconds before the second attempt, doubled with each further one, times 0.5 to 1.5
TIMEOUT = 30.0  # seconds without a byte
DEADLINE = 600.0  # seconds for a whole answer, however steadily it drips
CONNECTIONS = 8
DAY = 86400.0

FAMILIES = {"10-K": r"10-?KT?(?:SB)?(?:405|40)?", "10-Q": r"10-?QT?(?:SB)?"}  # one report, by many names in 30 years


class Fault(Exception):
    """An answer that did not arrive whole, or is not what it should be: worth another attempt."""


class Missing(Exception):
    """EDGAR does not have it."""


class Client:
    """GETs for all threads: each has its own connections, and all wait at one gate."""

    def __init__(self, base_url, user_agent, per_second):
        self.base_url = base_url and base_url.rstrip("/")  # if given, it stands for both hosts of EDGAR
        self.headers = {"User-Agent": user_agent, "Accept-Encoding": "gzip"}
        self.pause = 1.1 / per_second  # a tenth more than needed: delays on the way may crowd what left evenly
        self.threads = max(1, min(CONNECTIONS, int(4 * per_second)))  # so few that none idles until it is hung up on
        self.gate, self.ended, self.mine = threading.Lock(), threading.Event(), threading.local()
        self.turn = self.resume = 0.0  # by time.monotonic: when the next request may go out; when the stop is over
        self.requests = self.stops = 0  # how many so far; how many in a row

    def url(self, path):
        return (self.base_url or f"https://{'data' if path.startswith('/submissions/') else 'www'}.sec.gov") + path

    def get(self, path, receive):
        """
        GET a path and hand the pieces of its body to `receive`; returns what it returns. After a Fault, also one that
        `receive` raises, there is another attempt; the last Fault is passed on. Raises Missing for a 404.
        """
        scheme, host, target = urllib.parse.urlsplit(self.url(path))[:3]
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        connection = vars(self.mine)[host] = vars(self.mine).get(host) or kind(host, timeout=TIMEOUT)
        for attempt in range(ATTEMPTS):
            try:
                with as_fault(host):
                    sent, response = self.send(connection, target)
                self.judge(sent, response)
                return receive(self.body(sent, response))
            except BaseException as e:
                connection.close()  # or what is left on it would be taken for the next answer
                if not isinstance(e, Fault) or attempt == ATTEMPTS - 1:
                    raise
            self.ended.wait(BACKOFF * 2**attempt * random.uniform(0.5, 1.5))

    def send(self, connection, target):
        """Wait for a turn and send a GET → (when, the response up to its body)."""
        while not self.ended.wait(max(0, max(self.turn, self.resume) - time.monotonic())):
            if connection.sock is None:
                connection.connect()
            with self.gate:  # until this one has left, no other thread sends or declares a stop
                sent = time.monotonic()
                if sent >= max(self.turn, self.resume):
                    self.turn, self.requests = sent + self.pause, self.requests + 1
                    connection.request("GET", target, headers=self.headers)
                    break
        else:
            raise Fault("the run is over")
        return sent, connection.getresponse()

    def judge(self, sent, response):
        """Raise what an answer that is no 200 means: Missing, Fault, and for 403 and 429 a stop of everything."""
        status, asked = response.status, response.headers.get("Retry-After", "")
        xml = response.headers.get("Content-Type", "").startswith("application/xml")
        missing = status in (404, 410) or (status == 403 and xml)  # EDGAR's storage says 403 for what it does not have
        with self.gate:
            first = sent >= self.resume  # not one of those that were under way when the last stop began
            if status in (403, 429) and not missing:
                wait = max(STOP, min(DAY, float(asked))) if asked.isdecimal() else STOP
                self.resume, self.stops = max(self.resume, time.monotonic() + wait), self.stops + first
                if self.stops > STOPS:
                    raise ValueError(f"EDGAR refuses ({status}), also after {STOPS} stops; check --user_agent and who "
                                     "else at your address uses EDGAR, and run the same command again later")
                if first:
                    until = datetime.datetime.now() + datetime.timedelta(seconds=wait)
                    say(f"EDGAR answered {status}: no request until {until:%H:%M:%S}, then it goes on")
            elif first and (status == 200 or missing):
                self.stops = 0
        if missing:
            raise Missing
        if status != 200:
            raise Fault(f"status {status}")

    def body(self, sent, response):
        """Yield the body in pieces, unzipped. Reaches its end only if every byte is there and right."""
        zipped = response.headers.get("Content-Encoding", "").lower() == "gzip"
        with as_fault("the answer"), gzip.GzipFile(fileobj=response) if zipped else response as pieces:
            while piece := pieces.read1(1 << 16):
                if self.ended.is_set() or time.monotonic() > sent + DEADLINE:
                    raise Fault(f"not whole after {time.monotonic() - sent:.0f} s")
                yield piece
            if response.length:
                raise Fault(f"{response.length:,} bytes are missing")
            response.read()  # nothing, but it frees the connection for the next request

    def in_threads(self, function, items):
        """Yield (item, what function(item) returned or the Fault or Missing that it raised), as they finish."""
        def attempt(item):
            try:
                return item, function(item)
            except (Fault, Missing) as e:
                return item, e
        with ThreadPool(self.threads) as pool:
            yield from pool.imap_unordered(attempt, items)


@contextlib.contextmanager
def as_fault(what):
    """Trouble on the way, or an answer that can't be read as what it should be, is worth another attempt."""
    try:
        yield
    except (OSError, http.client.HTTPException, zlib.error, EOFError, ValueError, LookupError, TypeError,
            AttributeError) as e:  # fmt: skip
        raise Fault(" ".join(f"{what}: {type(e).__name__} {e}"[:300].split())) from None


@contextlib.contextmanager
def whole(path):
    """A binary file to write, which appears under its name when it is complete and on disk, otherwise not at all."""
    tmp = Path(f"{path}.tmp")
    try:
        with open(tmp, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def say(line):
    tqdm.write(line)
    sys.stdout.flush()


def today():
    return datetime.datetime.now(datetime.timezone.utc).date()


# Which filings: {"accession", "cik", "company", "form", "filed"} and, if known, "document", the main one's name

NAME = r"edgar/data/(?P=cik)/(?P<accession>\d{10}-\d\d-\d{6})\.txt"
TAIL = r" *(?P<cik>\d+) +(?P<filed>\d{4}-\d\d-\d\d) +" + NAME  # blanks vary in number, and may lack before the CIK
ROWS = {"Form Type": re.compile(r"(?P<form>\S+(?: \S+)*)  +(?P<company>.*?)" + TAIL),
        "Company Name": re.compile(r"(?P<company>.*)  (?P<form>\S+(?: \S+)*?)" + TAIL),
        "CIK|": re.compile(r"(?P<cik>\d+)\|(?P<company>.*)\|(?P<form>.*)\|(?P<filed>\d{4}-\d\d-\d\d)\|" + NAME)}


def form_pattern(names):
    """Form types as a user names them, in a list → a pattern for fullmatch. 10-K and 10-Q stand for their families."""
    parts = [name.upper().partition("/") for name in names]
    return re.compile("|".join(FAMILIES.get(form, re.escape(form)) + re.escape(slash + amended)
                               for form, slash, amended in parts), re.I)


def cached(client, path, urls, final, read):
    """
    What `read` makes of the gzip file `path` in the cache, which is fetched from the first of `urls` that EDGAR has.
    A copy fetched after the time `final`, when the original has ceased to change, is good for ever, any other for a
    day, if only `read` can read it. Raises Fault, and Missing if EDGAR has none.
    """
    def receive(pieces):
        with whole(path) as f:
            with gzip.GzipFile(fileobj=f, mode="wb", compresslevel=3) as z:
                z.writelines(pieces)
            f.flush()
            with as_fault(urls[0]):
                return read(f.name)

    if path.exists() and (path.stat().st_mtime > final or time.time() - path.stat().st_mtime < DAY):
        with contextlib.suppress(Fault), as_fault(path):
            return read(path)
    for url in urls:
        with contextlib.suppress(Missing):
            return client.get(url, receive)
    raise Missing


def cached_json(client, folder, path, final=math.inf):
    return cached(client, folder / f"{os.path.basename(path)}.gz", [path], final,
                  lambda copy: dict(json.loads(gzip.decompress(Path(copy).read_bytes()))))


def read_index(path, wanted):
    """
    A cached index → (its rows whose form `wanted` matches, as filings; the rows that can't be read). The header says
    of which kind it is: form.idx, company.idx, or master.idx. ValueError if it is no index, or ends within a row.
    """
    pattern, row, line, found, unread = None, None, "", [], []
    with gzip.open(path, "rt", encoding="latin-1") as lines:
        for line in filter(str.strip, lines):
            if not pattern:
                pattern = next((pattern for head, pattern in ROWS.items() if line.startswith(head)), None)
            elif row := pattern.fullmatch(line.rstrip()):
                if wanted.fullmatch(row["form"]):
                    found.append(row.groupdict() | {"cik": int(row["cik"]), "company": row["company"].strip()})
            elif line.strip("- \n"):
                unread.append(line.rstrip())
    if not pattern or not (row or re.fullmatch("-+\n", line)):
        raise ValueError(f"no index, or one that ends in the middle of a row: {line[:60]}")
    return found, unread


def of_quarter(client, folder, wanted, year, quarter):
    """The filings of a quarter's index."""
    urls = [f"/Archives/edgar/full-index/{year}/QTR{quarter}/{kind}.idx" for kind in ("form", "company", "master")]
    final = datetime.datetime(year + quarter // 4, quarter * 3 % 12 + 1, 3)  # rebuilt nightly, so two days later
    found, unread = cached(client, folder / f"{year}-QTR{quarter}.idx.gz", urls, final.timestamp(),
                           lambda path: read_index(path, wanted))
    if unread:
        say(f"{len(unread)} rows in the index of {year} QTR{quarter} can't be read, such as: {unread[0][:150]}")
    return found


def of_company(client, folder, wanted, years, cik):
    """The filings of a company by its submissions JSON, of which older pages may exist."""
    first, filings = cached_json(client, folder, f"/submissions/CIK{cik:010d}.json"), []
    with as_fault(f"CIK {cik}"):
        pages = [first["filings"]["recent"]] + [
            cached_json(client, folder, f"/submissions/{older['name']}") for older in first["filings"]["files"]
            if older["filingFrom"][:4] <= str(years[-1]) and older["filingTo"][:4] >= str(years[0])]
        for page in pages:
            for accession, form, filed, document in zip(
                    page["accessionNumber"], page["form"], page["filingDate"], page["primaryDocument"], strict=True):
                if not re.fullmatch(r"[\d-]{20}", accession):  # it will be the name of a file
                    raise ValueError(f"an accession number can't be {accession!r}")
                if wanted.fullmatch(form) and int(filed[:4]) in years:
                    filings.append(dict(accession=accession, form=form, company=first["name"], cik=cik, filed=filed,
                                        document=document))
    return filings


def of_tickers(client, folder, tickers):
    """CIKs of ticker symbols."""
    rows = cached_json(client, folder, "/files/company_tickers.json").values()
    with as_fault("company_tickers.json"):
        known = {row["ticker"]: int(row["cik_str"]) for row in rows}
    tickers = [ticker.upper().replace(".", "-") for ticker in tickers]  # BRK.B is BRK-B here
    if unknown := [ticker for ticker in tickers if ticker not in known]:
        raise ValueError(f"--tickers: EDGAR knows no {', '.join(unknown[:9])}; give the company's number to --ciks")
    return {known[ticker] for ticker in tickers}


def of_industry(client, folder, codes, filings, limit):
    """Those whose company's SIC code begins with one of `codes`, asking for no more companies than `limit` needs."""
    chosen, batch = [], 64 if limit else len(filings)
    while filings and len(chosen) < (limit or math.inf):
        some, filings = filings[:batch], filings[batch:]
        companies = gathered(client, "company with the CIK {}", lambda cik: cached_json(
            client, folder, f"/submissions/CIK{cik:010d}.json", final=0), {(filing["cik"],) for filing in some})
        chosen += [filing for filing in some
                   if str(companies.get((filing["cik"],), {}).get("sic")).startswith(tuple(codes))]
    return chosen


def gathered(client, what, function, questions):
    """
    {question: function(*question)}, but for what EDGAR doesn't have; `what` describes one. ValueError if one can't be
    read: a selection must be complete, or --limit would draw another sample the next time.
    """
    answers = {}
    results = client.in_threads(lambda question: function(*question), questions)
    for question, answer in tqdm(results, what.split()[0], len(questions), disable=None):
        if isinstance(answer, Fault):
            raise ValueError(f"the {what.format(*question)} could not be read ({answer}); run the same command again")
        if isinstance(answer, Missing):
            say(f"EDGAR has no {what.format(*question)}")
        else:
            answers[question] = answer
    return answers


def select(client, args, folder):
    """
    The filings that the flags ask for, each once, in the order of a hash of their accession numbers: the first N of
    them are a fair sample of all, whatever the order of the index, and the first 20 are among the first 200.
    """
    wanted, now = form_pattern(args.forms), today()
    ciks = {int(cik.upper().removeprefix("CIK")) for cik in args.ciks}
    if args.tickers:
        known = gathered(client, "list of tickers", lambda: of_tickers(client, folder, args.tickers), [()])
        ciks |= known.get((), set())
    years = args.years or (range(1993, now.year + 1) if ciks else range(now.year - 3, now.year))
    if ciks:
        parts = gathered(client, "list of filings of CIK {}",
                         lambda cik: of_company(client, folder, wanted, years, cik), [(cik,) for cik in ciks])
    else:
        begun = [(year, q) for year in years for q in (1, 2, 3, 4) if (year, q * 3 - 2) <= (now.year, now.month)]
        parts = gathered(client, "index of {} QTR{}",
                         lambda year, quarter: of_quarter(client, folder, wanted, year, quarter), begun)
    filings = {}
    for filing in sorted(sum(parts.values(), []), key=lambda filing: filing["cik"]):
        filings.setdefault(filing["accession"], filing)  # of co-registrants, who share one, the lowest CIK has it
    filings = sorted(filings.values(), key=lambda filing: hashlib.sha256(filing["accession"].encode()).digest())
    if args.sic:
        filings = of_industry(client, folder, args.sic, filings, args.limit)
    if not filings:
        raise ValueError(f"no filing matches --forms {','.join(args.forms)} in {years[0]} to {years[-1]}"
                         + (f", --sic {','.join(args.sic)}" if args.sic else "") + "; check the flags")
    return filings[: args.limit]


# One filing

TAG = re.compile(rb"\n<DOCUMENT>\s*<TYPE>([^\r\n<]*)[\r\n<]|\n</DOCUMENT>")
WHOLE = re.compile(  # from the first bytes to the last
    rb"\s*((-----BEGIN PRIVACY-ENHANCED|<(SEC|IMS)-(DOCUMENT|HEADER)>|<SUBMISSION>).*"
    rb"(</((SEC|IMS)-DOCUMENT|SUBMISSION)>|-----END PRIVACY-ENHANCED MESSAGE-----)|<DOCUMENT>.*</DOCUMENT>)\s*", re.S)


def keep(pieces, form):
    """
    Of a full submission in pieces, pass on the header, the main document (the first one, and the first whose TYPE is
    the form), every EX-13, and the closing lines. Fault at the end if this was no submission, or not all of it.
    """
    form, keeping, kinds = form.upper().encode(), True, set()
    buffer, head, tail = b"\n", b"", b""  # the first byte of the buffer has always been dealt with
    for piece in pieces:
        buffer, head, tail = buffer + piece, (head + piece)[:99], (tail + piece)[-99:]
        while tag := TAG.search(buffer):
            if keeping:
                yield buffer[1 : tag.start()]
            if tag[1] is not None:
                kind = tag[1].strip().upper()
                keeping = not kinds or kind.startswith(b"EX-13") or (kind == form and form not in kinds)
                kinds.add(kind)
            if keeping:
                yield buffer[max(1, tag.start()) : tag.end()]
            keeping = keeping or tag[1] is None
            buffer = buffer[tag.end() - 1 :]
        if keeping:
            yield buffer[1:-999]
        buffer = buffer[:1] + buffer[1:][-999:]  # a tag may begin here and end in the next piece
    yield buffer[1:]
    if not WHOLE.fullmatch(head + tail):
        raise Fault(f"no whole submission: it begins with {head[:40]!r} and ends with {tail[-40:]!r}")


def from_folder(client, filing):
    """
    A filing whose full submission is not there → the same made of the documents in its folder, and the URL of the
    main one. Raises Missing if there is no folder, or no document in it.
    """
    folder = f"/Archives/edgar/data/{filing['cik']}/{filing['accession'].replace('-', '')}/"

    def read(pieces):
        with as_fault("index.json"):
            files = {item["name"]: int(item["size"] or 0) for item in json.loads(b"".join(pieces))["directory"]["item"]}
            return {name: files[name] for name in files if re.search(r"(?i)\.(html?|txt)$", name)
                    and not re.match(r"R\d+\.|\d{10}-\d\d-\d{6}", name)}  # made by EDGAR

    sizes = client.get(folder + "index.json", read)
    main = filing.get("document")
    if main not in sizes:  # not known from the submissions JSON: the largest that is not called an exhibit
        main = max(sizes, key=lambda name: (not re.search(r"(?i)ex(hibit)?[-_.]?\d", name), sizes[name]), default=None)
    if main is None:
        raise Missing
    annual = [name for name in sizes if name != main and re.search(r"(?i)ex(hibit)?[-_.]?13", name)]
    text = (f"<SEC-DOCUMENT>{filing['accession']}.txt\n<SEC-HEADER>\nACCESSION NUMBER:\t\t{filing['accession']}\n"
            f"CONFORMED SUBMISSION TYPE:\t{filing['form']}\nFILED AS OF DATE:\t{filing['filed'].replace('-', '')}\n"
            f"FILER:\n\tCOMPANY DATA:\n\t\tCOMPANY CONFORMED NAME:\t\t\t{filing['company']}\n"
            f"\t\tCENTRAL INDEX KEY:\t\t\t{filing['cik']:010d}\n</SEC-HEADER>\n").encode()
    for name in [main, *annual]:
        kind = filing["form"] if name == main else "EX-13"
        text += f"<DOCUMENT>\n<TYPE>{kind}\n<FILENAME>{name}\n<TEXT>\n".encode()
        text += client.get(folder + urllib.parse.quote(name), b"".join) + b"\n</TEXT>\n</DOCUMENT>\n"
    return text + b"</SEC-DOCUMENT>\n", client.url(folder + main)


def fetch(client, out, filing):
    """Download one filing → its line for fetch.jsonl. Raises Fault, or OSError if the disk is full."""
    cik, name = f"{filing['cik']:010d}", f"{filing['accession']}.txt"
    path, target = out / "filings" / cik / name, f"/Archives/edgar/data/{filing['cik']}/{name}"
    line = {"url": client.url(target), "path": f"filings/{cik}/{name}", "form": filing["form"], "cik": cik,
            "company": filing["company"], "filed": filing["filed"], "accession": filing["accession"]}

    def save(pieces):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as f:
            f.writelines(pieces)

    try:
        try:
            client.get(target, lambda pieces: save(keep(pieces, filing["form"])))
        except Missing:
            text, line["url"] = from_folder(client, filing)
            save([text])
        line |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    except Missing:
        line["status"] = 404
    return line | {"time": datetime.datetime.now(datetime.timezone.utc).isoformat()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_log(out):
    """{accession: line} of fetch.jsonl, but for lines whose file is no longer what it was."""
    log, path = {}, out / "fetch.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # no such file, or a torn line
            line = json.loads(line)
            if "status" not in line:
                file, then = out / line["path"], datetime.datetime.fromisoformat(line["time"]).timestamp()
                changed = file.stat().st_mtime > then and sha256(file) != line["sha256"]
                if changed or file.stat().st_size != line["bytes"]:
                    continue
            log[line["accession"]] = line
    return log


# The command


def user_agent(text):
    """An argparse type: a name and an e-mail address, in plain letters."""
    name = re.sub(r"\S+@[\w-]+(\.[\w-]+)*\.[a-zA-Z]{2,}", "", text)
    if (name == text or not re.search("[a-zA-Z]{2}", name) or not re.fullmatch("[ -~]+", text)
            or re.search("(?i)mozilla|chrome/|safari/", text)):
        raise argparse.ArgumentTypeError('give your name and e-mail address in plain letters, as in "Jane Doe '
                                         'jane@example.com": EDGAR refuses who does not say, or poses as a browser')
    return text


def listed(pattern):
    """An argparse type: a list separated by commas, or a file of words and # comments, of what matches the pattern."""
    def parse(text):
        if os.path.isfile(text):
            text = ",".join(re.sub("#.*", "", Path(text).read_text(encoding="utf-8")).split())
        items = [item.strip() for item in text.split(",") if item.strip()]
        if not items or not all(re.fullmatch(pattern, item) for item in items):
            raise argparse.ArgumentTypeError(f"{text[:99]!r} is neither a list of them nor a file with one")
        return items
    return parse


def year_list(text):
    """An argparse type: 2021-2023 or 2005,2015 → the years, sorted."""
    parts = [re.fullmatch(r"(\d{4})(?:-(\d{4}))?", part.strip()) for part in text.split(",")]
    years = sorted({year for part in filter(None, parts) for year in range(int(part[1]), int(part[2] or part[1]) + 1)})
    if not all(parts) or not years or years[0] < 1993 or years[-1] > today().year:
        raise argparse.ArgumentTypeError(f"{text}: give it as in 2021-2023, from 1993, EDGAR's first year, to now")
    return years


def add_flags(parser):
    """The flags of `prepare.py edgar`; `run` takes the parsed ones."""
    add = parser.add_argument
    add("--out", required=True, help="the folder to write, or to continue in")
    add("--user_agent", type=user_agent, required=True,
        help='who asks, for the SEC\'s log: your name and e-mail address, "Jane Doe jane@example.com"')
    add("--forms", type=listed(".+"), default="10-K",
        help="10-K means the annual report under all its names (10-K405, 10-KSB, 10-KT, ...), 10-Q likewise; other "
             "types mean themselves; amendments only by name, as in 10-K,10-K/A")
    add("--years", type=year_list, help="of filing, as in 2021-2023 or 2005,2015; without it the last three complete "
                                        "ones, or, with --ciks or --tickers, all")
    add("--ciks", type=listed(r"(?i)(CIK)?\d{1,10}"), default=[],
        help="only these companies: 320193,789019, or a file with their numbers")
    add("--tickers", type=listed(r"[A-Za-z0-9.-]{1,10}"), default=[], help="only these companies: AAPL,MSFT, or a file")
    add("--sic", type=listed(r"\d{1,4}"), default=[],
        help="only industries whose SIC code begins so: 7372,2834 or 73; costs a request per company, once")
    add("--limit", type=cli.positive(int), help="a fair sample of so many; 20 are among the first 200")
    add("--requests_per_second", type=cli.positive(float), default=8.0, help="at most; the SEC allows 10")
    add("--base_url", help="a mirror that serves EDGAR's paths, instead of www.sec.gov and data.sec.gov")


def run(args):
    """The command. ValueError if something is wrong or filings failed; a second run does what is left."""
    if args.base_url and not re.fullmatch(r"https?://([\w.-]+|\[[\da-f:]+\])(:\d+)?(/[\w./~-]*)?", args.base_url):
        raise ValueError(f"--base_url {args.base_url}: give it as in http://127.0.0.1:8000")
    if args.requests_per_second > 10 and ".sec.gov" in (args.base_url or ".sec.gov"):
        raise ValueError(f"--requests_per_second {args.requests_per_second:g}: the SEC allows 10, and blocks who asks "
                         "for more")
    out, client = Path(args.out), Client(args.base_url, args.user_agent, args.requests_per_second)
    (out / "index").mkdir(parents=True, exist_ok=True)
    with open(out / "index" / "lock", "w") as file:
        lock(file, out)
        for path in [*out.glob("*.json*.tmp"), *out.glob("index/*.tmp"), *out.glob("filings/*/*.tmp")]:
            path.unlink()  # what a kill has left behind
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            download(client, args, out)
        except BaseException as e:
            client.ended.set()
            time.sleep(0.2)  # for the threads to notice, and to remove their temporary files
            if isinstance(e, OSError):
                e.filename = e.filename or str(out)  # a full disk doesn't say where
            if isinstance(e, KeyboardInterrupt | SystemExit):
                say("interrupted; run the same command again to continue")
            raise


def lock(file, out):
    """One run at a time in a folder; one that was just interrupted has five seconds to end."""
    for attempt in range(26):
        try:
            import fcntl

            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.2 * (attempt < 25))
        except (ImportError, OSError):  # Windows, or a file system, without locks
            return None
    raise ValueError(f"another prepare.py edgar is at work in {out}; wait, or choose another --out")


def download(client, args, out):
    """Select, fetch what is not there yet, and tell."""
    began, hosts = time.time(), args.base_url or "www.sec.gov and data.sec.gov"
    say(f"asking {hosts} as {args.user_agent!r}, at most {args.requests_per_second:g} requests a second")
    chosen, log = select(client, args, out / "index"), read_log(out)
    todo = [filing for filing in chosen if filing["accession"] not in log]
    here, missing, size, failed = len(chosen) - len(todo), 0, 0, []
    say(f"{len(chosen):,} filings, {here:,} of them already here: {len(todo):,} to fetch from {hosts}, which takes "
        f"{len(todo) * client.pause / 60:.1f} minutes or more")
    selection = {flag: getattr(args, flag) for flag in ("forms", "years", "ciks", "tickers", "sic", "limit")}
    with whole(out / "source.json") as f:
        f.write(json.dumps({"name": "SEC EDGAR", "url": client.url(""), "licence": "public record (SEC EDGAR)",
                            "fetched": str(today()), "command": selection}, indent=1).encode())
    with whole(out / "fetch.jsonl") as f:
        f.writelines(json.dumps(line).encode() + b"\n" for line in log.values())
    with tqdm(total=len(chosen), initial=here, unit="filing", disable=None) as bar:
        for filing, line in client.in_threads(lambda filing: fetch(client, out, filing), todo):
            bar.update()
            if isinstance(line, Fault):
                failed.append(f"  failed: {filing['accession']} {filing['company']}: {line}")
                continue
            with open(out / "fetch.jsonl", "ab") as f:
                f.write(json.dumps(line).encode() + b"\n")
            missing, size = missing + ("status" in line), size + line.get("bytes", 0)
    say("\n".join(failed[:20] + [
        f"fetched {len(todo) - missing - len(failed):,}, already there {here:,}, missing {missing:,}, failed "
        f"{len(failed):,}: {size / 1e6:,.1f} MB, {client.requests:,} requests, {time.time() - began:,.0f} s"]))
    if failed:
        raise ValueError(f"{len(failed):,} of {len(chosen):,} filings failed; run the same command again")
    say(f"next: python prepare.py corpus {out} --out DIR")
