"""
A small EDGAR on this machine, to download from in tests: it speaks EDGAR's paths for synthetic filings, writes down
every request, and misbehaves on demand.

    with EdgarServer(make_filings(20), faults={"form.idx": "503"}, fault_rate=0.2, seed=1) as server:
        ...                       # server.url, server.requests: [Request(time, path, agent, fault or "", connection)]

A fault is one of FAULTS. `faults` maps a part of a path to a fault or a list of them: each list is used up request by
request ("" lets one through), a single one lasts. `fault_rate` lets every request fail with that probability, seeded by
path and attempt, in one of the ways of `fault_kinds`.
"""
import collections
import gzip
import http.server
import json
import random
import socket
import struct
import threading
import time

Request = collections.namedtuple("Request", "time path agent what connection")

FAULTS = ("503", "500", "reset", "hang up", "cut", "cut, chunked", "too long", "end missing", "drip", "html",
          "bad gzip", "cut gzip", "empty")  # fmt: skip
STOPS = ("403", "429", "403, slow body")  # besides: "404", "absent" (storage's 403), "redirect", "elsewhere" (a host)

HTML = b"<!DOCTYPE html><html><body><h1>SEC.gov</h1><p>This page is temporarily unavailable.</p></body></html>"

ABSENT = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


def make_filings(n=20, seed=0, years=(2021, 2022), forms=("10-K", "10-K405", "10-Q"), size=3000):
    """
    Filings as dicts: accession, ciks (every seventh has a co-registrant), company, form, filed, sic, document (the name
    of the main one), documents, and body, the full submission with a picture and now and then an EX-13.
    """
    rng = random.Random(seed)
    filings = []
    for k in range(n):
        cik, year = 9000001 + k // 3, rng.choice(years)
        filing = {"accession": f"{cik:010d}-{year % 100:02d}-{k + 1:06d}", "ciks": [cik] + [9500000 + k] * (k % 7 == 6),
                  "company": f"Example   Widgets No. {k // 3}, Inc. / DE", "form": rng.choice(forms),
                  "sic": str(7300 + k // 3), "filed": f"{year}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
                  "document": f"main{k}.htm"}
        filings.append(filing | {"documents": make_documents(rng, filing, k, size)})
        filings[-1]["body"] = submission(filings[-1])
    return filings


def make_documents(rng, filing, k, size):
    """(TYPE, file name, text) of each document of a filing."""
    words = "the company sells widgets to customers in many states and countries and its net sales increased".split()
    prose = "\n".join(" ".join(rng.choices(words, k=12)) for _ in range(size // 60))
    annual = [("EX-13.1", f"ex13-{k}.htm", "<html><p>Annual report.\n" + prose + "</html>")] if k % 3 == 0 else []
    picture = "\n".join("M" + "".join(rng.choices("ABCDEF+/0123", k=60)) for _ in range(size // 60))
    return [(filing["form"], filing["document"], f"<html><body><p>Item 1. Business\n{prose}\n</body></html>"),
            ("EX-21", f"ex21-{k}.htm", "<html><p>Subsidiaries: none.</html>"), *annual,
            ("GRAPHIC", "logo.jpg", f"begin 644 logo.jpg\n{picture}\nend"), ("EX-101.INS", "data.xml", "<xml/>")]


def submission(filing):
    """A filing as EDGAR's full submission text file, every fourth one in the 1990s' e-mail wrapper."""
    accession, day = filing["accession"], filing["filed"].replace("-", "")
    filers = "".join(f"FILER:\n\n\tCOMPANY DATA:\n\t\tCOMPANY CONFORMED NAME:\t\t\t{filing['company'].upper()}\n"
                     f"\t\tCENTRAL INDEX KEY:\t\t\t{cik:010d}\n\n" for cik in filing["ciks"])
    text = (f"<SEC-DOCUMENT>{accession}.txt : {day}\n<SEC-HEADER>{accession}.hdr.sgml : {day}\n"
            f"ACCESSION NUMBER:\t\t{accession}\nCONFORMED SUBMISSION TYPE:\t{filing['form']}\n"
            f"PUBLIC DOCUMENT COUNT:\t\t{len(filing['documents'])}\nFILED AS OF DATE:\t\t{day}\n\n{filers}"
            "</SEC-HEADER>\n")
    for number, (kind, name, body) in enumerate(filing["documents"], 1):
        text += f"<DOCUMENT>\n<TYPE>{kind}\n<SEQUENCE>{number}\n<FILENAME>{name}\n"
        text += f"<TEXT>\n{body}\n</TEXT>\n</DOCUMENT>\n"
    text += "</SEC-DOCUMENT>\n"
    if int(accession[-6:]) % 4 == 0:
        text = ("-----BEGIN PRIVACY-ENHANCED MESSAGE-----\nProc-Type: 2001,MIC-CLEAR\n\n" + text
                + "-----END PRIVACY-ENHANCED MESSAGE-----\n")  # fmt: skip
    return text.encode()


def index(filings, kind="form"):
    """form.idx, company.idx or master.idx of these filings, a row for each filer."""
    rows = sorted(((f["form"], f["company"], str(cik), f["filed"], f"edgar/data/{cik}/{f['accession']}.txt")
                   for f in filings for cik in f["ciks"]), key=lambda row: row[kind == "company"])
    head = (f"Description:           Master Index of EDGAR Dissemination Feed by {kind}\n"
            "Last Data Received:    March 31, 2021\nComments:              webmaster@sec.gov\n"
            "Anonymous FTP:         ftp://ftp.sec.gov/edgar/\n\n\n\n\n")
    if kind == "master":
        return head + "CIK|Company Name|Form Type|Date Filed|Filename\n" + "-" * 80 + "\n" + "".join(
            "|".join((cik, company, form, filed, name)) + "\n" for form, company, cik, filed, name in rows)
    names = ("Form Type", "Company Name", "CIK", "Date Filed", "File Name")

    def line(row):
        columns = [row[0].ljust(10), row[1].ljust(60), row[2].ljust(10), row[3].ljust(10), row[4]]
        columns[:2] = columns[:2] if kind == "form" else columns[1::-1]
        return "  ".join(columns).rstrip() + "\n"

    return head + line(names) + "-" * 141 + "\n" + "".join(map(line, rows))


def pages(filings):
    """{path: body} of everything that EDGAR serves about these filings."""
    found, companies = {}, collections.defaultdict(list)
    quarters = {(f["filed"][:4], (int(f["filed"][5:7]) + 2) // 3): [] for f in filings}
    for f in filings:
        quarters[f["filed"][:4], (int(f["filed"][5:7]) + 2) // 3].append(f)
        for cik in f["ciks"]:
            found[f"/Archives/edgar/data/{cik}/{f['accession']}.txt"] = f["body"]
            folder = f"/Archives/edgar/data/{cik}/{f['accession'].replace('-', '')}/"
            items = [{"name": name, "size": str(len(body.encode()))} for _, name, body in f["documents"]]
            items.append({"name": f"{f['accession']}-index.html", "size": ""})
            found[folder + "index.json"] = json.dumps({"directory": {"item": items, "name": folder}}).encode()
            found |= {folder + name: body.encode() for _, name, body in f["documents"]}
            companies[cik].append(f)
    for year in sorted({year for year, _ in quarters}):
        for quarter in (1, 2, 3, 4):
            for kind in ("form", "company", "master"):
                text = index(quarters.get((year, quarter), []), kind).encode()
                found[f"/Archives/edgar/full-index/{year}/QTR{quarter}/{kind}.idx"] = text
                found[f"/Archives/edgar/full-index/{year}/QTR{quarter}/{kind}.gz"] = gzip.compress(text)
    for cik, filed in companies.items():  # the newer half on the first page, the older half on a page of its own
        filed = sorted(filed, key=lambda f: f["filed"], reverse=True)
        newer, older = filed[: len(filed) // 2 + 1], filed[len(filed) // 2 + 1 :]
        name = f"CIK{cik:010d}-submissions-001.json"
        files = [{"name": name, "filingFrom": older[-1]["filed"], "filingTo": older[0]["filed"]}] if older else []
        found[f"/submissions/{name}"] = json.dumps(columns(older)).encode()
        found[f"/submissions/CIK{cik:010d}.json"] = json.dumps(
            {"cik": str(cik), "sic": filed[0]["sic"], "name": filed[0]["company"], "tickers": [f"T{cik}"],
             "filings": {"recent": columns(newer), "files": files}}).encode()
    found["/files/company_tickers.json"] = json.dumps(
        {str(i): {"cik_str": cik, "ticker": f"T{cik}", "title": ""} for i, cik in enumerate(companies)}).encode()
    return found


def columns(filings):
    return {"accessionNumber": [f["accession"] for f in filings], "filingDate": [f["filed"] for f in filings],
            "form": [f["form"] for f in filings], "primaryDocument": [f["document"] for f in filings],
            "size": [len(f["body"]) for f in filings]}


class EdgarServer:
    """Serves while the `with` block runs. `pages` may be changed, to take a path away or to put another body there."""

    def __init__(self, filings, faults=None, fault_rate=0.0, fault_kinds=FAULTS, seed=0, latency=0.0, drip=0.05,
                 retry_after="0"):
        self.filings, self.pages, self.requests = filings, pages(filings), []
        self.faults = {part: list(f) if isinstance(f, list | tuple) else f for part, f in (faults or {}).items()}
        self.fault_rate, self.fault_kinds, self.seed = fault_rate, fault_kinds, seed
        self.latency, self.drip = latency, drip  # seconds before an answer, and for each byte of a slow one
        self.retry_after = retry_after  # what a 429 says
        self.attempts, self.lock = collections.Counter(), threading.Lock()

    def __enter__(self):
        handler = type("Handler", (Handler,), {"edgar": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        self.server.request_queue_size = 64  # with the usual 5, the eighth connection at once would wait a second
        self.server.server_bind()
        self.server.server_activate()
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.server.handle_error = lambda *_: None  # a client that went away is part of the game
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def asked(self, part=""):
        """The requests whose path contains `part`."""
        with self.lock:
            return [request for request in self.requests if part in request.path]

    def fault_of(self, path):
        """What shall happen to this request: "" or the name of a fault."""
        self.attempts[path] += 1
        for part, fault in self.faults.items():
            if part in path and fault:
                return fault if isinstance(fault, str) else fault.pop(0)
        rng = random.Random(f"{self.seed} {path} {self.attempts[path]}")
        return rng.choice(self.fault_kinds) if rng.random() < self.fault_rate else ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for a small answer

    def log_message(self, *_):
        pass

    def do_GET(self):
        now, edgar = time.monotonic(), self.edgar
        with edgar.lock:
            fault = edgar.fault_of(self.path)
            edgar.requests.append(Request(now, self.path, self.headers.get("User-Agent"), fault, self.client_address))
        time.sleep(edgar.latency)
        body = edgar.pages.get(self.path)
        try:
            self.answer(fault or ("404" if body is None else ""), body or b"")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, fault, body):
        zipped = gzip.compress(body, 1)
        if fault == "":
            self.send(200, zipped, {"Content-Encoding": "gzip"})
        elif fault.isdigit():
            self.send(int(fault), HTML, {"Retry-After": self.edgar.retry_after} if fault == "429" else {})
        elif fault == "403, slow body":
            self.send(403, b"", {"Content-Length": str(len(HTML))})
            time.sleep(0.5)
            self.wfile.write(HTML)
        elif fault == "absent":
            self.send(403, gzip.compress(ABSENT), {"Content-Encoding": "gzip", "Content-Type": "application/xml"})
        elif fault == "elsewhere":
            self.send(301, b"", {"Location": f"http://localhost:{self.edgar.server.server_port}{self.path}"})
        elif fault == "redirect":
            self.send(302, HTML, {"Location": self.path})
        elif fault == "html":
            self.send(200, HTML)
        elif fault == "empty":
            self.send(200, b"")
        elif fault == "end missing":  # a length that is right, of a body that is not
            self.send(200, body[: len(body) * 2 // 3])
        elif fault == "bad gzip":
            damaged = bytearray(zipped)
            damaged[len(zipped) // 2] ^= 0xFF
            self.send(200, bytes(damaged), {"Content-Encoding": "gzip"})
        elif fault == "cut gzip":
            self.send(200, zipped[: len(zipped) // 2], {"Content-Encoding": "gzip"})
        elif fault == "too long":  # more than it says; what is left stands where the next answer should
            self.send(200, body, {"Content-Length": str(len(body) // 2)})
        elif fault == "cut, chunked":
            self.send(200, b"%x\r\n%s\r\n" % (len(body), body), {"Transfer-Encoding": "chunked"})
            self.close_connection = True
        elif fault == "cut":
            self.send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
            self.close_connection = True
        elif fault == "drip":
            self.send(200, b"", {"Content-Length": str(len(body))})
            for i in range(len(body)):
                time.sleep(self.edgar.drip)
                self.wfile.write(body[i : i + 1])
                self.wfile.flush()
        elif fault == "reset":
            self.send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
            self.hang_up(reset=True)
        elif fault == "hang up":
            self.hang_up(reset=False)
        else:
            raise ValueError(f"no such fault: {fault}")

    def hang_up(self, reset):
        if reset:  # closing with nothing to linger for sends RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
        self.connection.close()
        self.close_connection = True

    def send(self, status, body, headers=()):
        headers = {"Content-Type": "text/plain", "Content-Length": str(len(body))} | dict(headers)
        if "Transfer-Encoding" in headers:
            del headers["Content-Length"]
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
