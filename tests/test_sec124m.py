"""`make sec124m LIMIT=12`: from filings to a report in one command, against a local EDGAR that misbehaves."""
import json
import shutil
import subprocess
import time

import pytest
from conftest import ROOT
from edgar_server import EdgarServer, make_filings


@pytest.mark.slow
def test_one_command_stopped_and_continued(tmp_path):
    if not (ROOT / ".venv" / "installed").exists() or not shutil.which("make"):
        pytest.skip("needs make and the .venv that it made")
    filings = make_filings(16, years=(2021, 2023), forms=("10-K",), size=20_000)
    with EdgarServer(filings, fault_rate=0.1, fault_kinds=("503", "reset")) as server:
        command = ["make", "sec124m", "LIMIT=12", "USER_AGENT=Test test@example.com", "YEARS=2021-2023",
                   f"BASE_URL={server.url}", f"FILINGS={tmp_path}/filings", f"DATA={tmp_path}/data",
                   f"OUT={tmp_path}/run", f"RECIPE={tmp_path}/recipe.txt", "TOKENIZER=bpe:400"]
        (tmp_path / "recipe.txt").write_text(
            "--n_layer 1 --n_head 2 --n_embd 32 --seq_len 64 --batch_tokens 512 --steps 60 --save_every 5\n"
            "--eval_every 20 --eval_tokens 2048")
        for seconds in (3, 6, 9):  # in the middle of this or that
            process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
            time.sleep(seconds)
            subprocess.run(["pkill", "-KILL" if seconds == 6 else "-TERM", "-g", str(process.pid)], check=False)
            process.wait()
        asked = len(server.requests)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list((tmp_path / "filings" / "filings").rglob("*.txt"))) == 12
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
        assert again.returncode == 0 and "complete already" in again.stdout, again.stdout + again.stderr
        assert len(server.requests) <= asked + 60
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert all(s["url"].startswith(server.url) and s["licence"] == "public record (SEC EDGAR)"
               for s in manifest["sources"])
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert report["models"][0]["bits_per_byte"] > 0 and (tmp_path / "data" / "DATA.md").exists()
