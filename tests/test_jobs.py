"""jobs.py: a task's folder is whole or absent, claims of the dead are void, and helpers share the work."""
import os
import subprocess
import sys
import threading
import time

import pytest

import jobs


def write(folder, name, text="done"):
    with open(os.path.join(folder, name), "w") as f:
        f.write(text)


def fail(folder, error):
    write(folder, "half")
    raise error


@pytest.fixture
def job(tmp_path):
    jobs.open_folder(str(tmp_path / "job"), "key")
    yield (job := jobs.Job(str(tmp_path / "job"), workers=1))
    job.close()


def test_folders_come_in_order_and_what_exists_is_not_done_again(job):
    calls = [((f"file{i}",), 1) for i in range(5)]
    folders = job.run("stage", calls, write, "writing")
    assert [os.listdir(f) for f in folders] == [[f"file{i}"] for i in range(5)]
    assert job.run("stage", [((None,), 1)] * 5, None, "writing") == folders
    assert sorted(os.listdir(os.path.dirname(folders[0]))) == [f"{i:06d}" for i in range(5)]  # no claims, no drafts


@pytest.mark.parametrize("error", [ValueError("bad"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_task_that_fails_leaves_nothing(job, error):
    with pytest.raises(type(error)):
        job.run("stage", [((error,), 1)], fail, "failing")
    assert os.listdir(os.path.join(job.folder, "stage")) == []


def test_claims_of_dead_processes_and_old_ones_are_void(job, monkeypatch):
    stage = os.path.join(job.folder, "stage")
    os.makedirs(stage)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write(stage, "000000.claim", f"{jobs.HOST} {dead.pid}")
    write(stage, "000001.claim", "elsewhere 1")
    os.utime(os.path.join(stage, "000001.claim"), (0, 0))
    write(stage, "000002.claim", "")  # killed between opening and writing it
    os.utime(os.path.join(stage, "000002.claim"), (0, 0))
    assert len(job.run("stage", [(("x",), 1)] * 3, write, "writing")) == 3


def test_a_task_that_another_has_claimed_is_waited_for(job):
    stage = os.path.join(job.folder, "stage")
    os.makedirs(stage)
    write(stage, "000000.claim", "elsewhere 1")

    def other():
        time.sleep(0.5)
        os.makedirs(os.path.join(stage, "000000"))
        write(os.path.join(stage, "000000"), "theirs")
    thread = threading.Thread(target=other)
    thread.start()
    folders = job.run("stage", [(("ours",), 1)] * 2, write, "writing")
    thread.join()
    assert [os.listdir(f) for f in folders] == [["theirs"], ["ours"]]


def test_two_at_one_task_do_no_harm(job):
    """Claims are an economy: here both see the other's as void, since they are one process."""
    def note(folder, i):
        time.sleep(0.01)
        write(folder, str(i))
    calls = [((i,), 1) for i in range(30)]
    helpers = [threading.Thread(target=jobs.Job(job.folder, 1).run, args=("s", calls, note, "x")) for _ in range(3)]
    for t in helpers:
        t.start()
    for t in helpers:
        t.join()
    assert sorted(os.listdir(os.path.join(job.folder, "s"))) == [f"{i:06d}" for i in range(30)]
    assert all(os.listdir(os.path.join(job.folder, "s", f"{i:06d}")) == [str(i)] for i in range(30))


def test_a_folder_that_vanished_was_finished_by_others(job):
    import shutil

    with pytest.raises(jobs.Gone):
        job.run("stage", [((job.folder,), 1)], lambda folder, path: shutil.rmtree(path), "vanishing")


def test_another_job_in_the_folder_is_left_alone(tmp_path):
    folder = str(tmp_path / "job")
    jobs.open_folder(folder, "one")
    write(folder, "work")
    jobs.open_folder(folder, "one")
    with pytest.raises(ValueError, match="other flags"):
        jobs.open_folder(folder, "two")
    assert sorted(os.listdir(folder)) == ["job.json", "work"] and os.listdir(tmp_path) == ["job"]


def test_drafts_of_the_killed_are_removed(job):
    draft = os.path.join(job.folder, "stage", "000000.abc")
    os.makedirs(draft)
    os.utime(draft, (0, 0))
    job.run("stage", [(("x",), 1)], write, "writing")
    assert os.listdir(os.path.join(job.folder, "stage")) == ["000000"]
