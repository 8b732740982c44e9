"""
Long work that can be stopped, continued and shared.

    job = Job("data/sec.partial", workers=8)
    folders = job.run("read", [(args, size), ...], function, "reading")   # function(folder, *args) fills the folder

A job is a folder. A task is a function that fills a folder of its own, stage/00017, which appears complete, by one
rename, or not at all: what exists is done. So an interrupted job goes on where it was, and any number of processes, on
any machine that sees the same disk, work on it together by running the same command, whenever each begins. Should two
ever do the same task, they write the same bytes and one copy is thrown away. Claims only make that rare: a file beside
the task's folder names host and process, and its time is renewed; the claim of a dead process, or one that was not
renewed for five minutes, is void.
"""
import collections
import concurrent.futures
import contextlib
import functools
import glob
import json
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
import types
import uuid

import numpy as np
from tqdm import tqdm

RENEW, VOID = 30, 300  # seconds
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes
HOST = socket.gethostname()


class Gone(Exception):
    """The job's folder has vanished: somebody else has finished it."""


class Job:
    """
    A job that this process, with `workers` processes of its own (none besides itself if 1), helps to finish.
    """

    def __init__(self, folder, workers, rank=0, world=1):
        self.folder, self.workers, self.rank, self.world = folder, workers, rank % world, world
        self.claims, self.pool, self.closed = set(), None, threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def run(self, stage, calls, function, label):
        """
        Have function(folder, *args) done for all calls, a list of (args, size), by us or by others. Returns the
        folders, in order. `label` names the progress bar, which counts the sizes. Whatever the function raises is
        raised here, with the rest left undone.
        """
        folders = [os.path.join(self.folder, stage, f"{i:06d}") for i in range(len(calls))]
        os.makedirs(os.path.join(self.folder, stage), exist_ok=True)
        first = len(calls) * self.rank // self.world  # those who begin together begin at different places
        todo = collections.deque([*range(first, len(calls)), *range(first)])
        running, looked = {}, time.time()
        with tqdm(total=sum(size for _, size in calls), unit="B", unit_scale=True, desc=label, disable=None) as bar:
            while todo or running:
                others = []
                while todo and len(running) < 2 * self.workers:
                    i = todo.popleft()
                    if os.path.isdir(folders[i]):
                        bar.update(calls[i][1])
                    elif running and sum(calls[j][1] for j in [i, *running.values()]) > MEMORY // 4:
                        others.append(i)  # a parquet page is held whole, twice over
                    elif not self._claim(folders[i] + ".claim"):
                        others.append(i)
                    elif self.workers == 1:
                        self._settle(folders[i], perform, folders[i], function, calls[i][0])
                        bar.update(calls[i][1])
                    else:
                        running[self._pool().submit(perform, folders[i], function, calls[i][0])] = i
                todo.extend(others)
                if running:
                    done, _ = concurrent.futures.wait(running, 1, concurrent.futures.FIRST_COMPLETED)
                    for future in done:
                        self._settle(folders[running[future]], future.result)
                        bar.update(calls[running.pop(future)][1])
                elif todo:
                    time.sleep(0.2)
                    if not os.path.isdir(self.folder):
                        raise Gone
                    if time.time() - looked > 30:
                        looked = time.time()
                        bar.write(f"waiting for {len(todo)} tasks that others have claimed ({label})")
        return folders

    def _settle(self, folder, function, *args):
        """Call, and give up the claim. Tells a job that somebody else finished and cleared away from real trouble."""
        try:
            function(*args)
        except OSError:
            if not os.path.isdir(self.folder):
                raise Gone from None
            raise
        except concurrent.futures.BrokenExecutor:  # the kernel kills workers for their memory
            raise MemoryError from None
        finally:
            self._release(folder + ".claim")

    def _pool(self):
        if not self.pool:
            self.pool = concurrent.futures.ProcessPoolExecutor(
                self.workers, multiprocessing.get_context("spawn"), start_worker)
        return self.pool

    def close(self):
        """End the workers now; what they were at is begun anew next time."""
        self.closed.set()
        if self.pool:
            processes = list((self.pool._processes or {}).values())
            self.pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
            self.pool = None
        for path in list(self.claims):
            self._release(path)

    def _claim(self, path):
        while True:
            try:
                with open(path, "x") as f:
                    f.write(f"{HOST} {os.getpid()}")
                self.claims.add(path)
                remove_old_drafts(path.removesuffix(".claim"))
                return True
            except FileExistsError:
                if not self._is_void(path):
                    return False
                remove(path)
            except FileNotFoundError:
                raise Gone from None

    def _is_void(self, path):
        try:
            with open(path) as f:
                host, _, pid = f.read().rpartition(" ")
            if host == HOST and pid.isdigit() and (int(pid) == os.getpid() or not is_alive(int(pid))):
                return True
            return time.time() - os.path.getmtime(path) > VOID
        except FileNotFoundError:
            return True

    def _release(self, path):
        self.claims.discard(path)
        remove(path)

    def _renew(self):
        while not self.closed.wait(RENEW):
            for path in list(self.claims):
                try:
                    os.utime(path)
                except OSError:
                    pass


def remove_old_drafts(folder):
    """What processes that were killed had written of a task."""
    for draft in glob.glob(glob.escape(folder) + ".*"):
        if os.path.isdir(draft) and time.time() - os.path.getmtime(draft) > VOID:
            shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def whole(folder):
    """A draft to fill, which then gets the folder's name; if somebody else was faster, theirs stays."""
    draft = f"{folder}.{uuid.uuid4().hex}"
    os.makedirs(draft)
    try:
        yield draft
        os.rename(draft, folder)
    except OSError:
        if not os.path.isdir(folder):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def perform(folder, function, args):
    """Do a task."""
    with whole(folder) as draft:
        function(draft, *args)
        for name in os.listdir(draft):  # a rename must not outlive, in a power cut, what it names
            with open(os.path.join(draft, name), "rb") as f:
                os.fsync(f.fileno())


def open_folder(folder, key):
    """
    Begin or continue the job `key` (a string) in this folder. ValueError if it holds another job's work.
    """
    with whole(folder) as draft:
        save_json(draft, "job", {"key": key})
    try:
        if load_json(folder, "job")["key"] == key:
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{folder} holds an unfinished job with other flags or inputs; run that to its end, or remove "
                     f"that folder")


def start_worker():
    """A worker leaves Ctrl-C to the parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove(path):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


# ----------------------------------------------------------------------------------------------------------------------
# What tasks write into their folders


def save(folder, **arrays):
    for name, array in arrays.items():
        with open(os.path.join(folder, f"{name}.npy"), "wb") as f:  # numpy's own would not say that a disk is full
            np.lib.format.write_array(types.SimpleNamespace(write=f.write), array)


def save_ragged(folder, **rows):
    """Arrays of different lengths, as two files: all in one, and where each ends."""
    for name, arrays in rows.items():
        save(folder, **{name: np.concatenate([np.empty(0, arrays[0].dtype if arrays else np.uint64), *arrays]),
                        f"{name}_ends": np.cumsum([0, *map(len, arrays)])})


class Ragged:
    """What save_ragged wrote, mapped rather than held."""

    def __init__(self, folder, name):
        path = os.path.join(folder, name)
        self.flat, self.ends = np.load(path + ".npy", mmap_mode="r"), np.load(path + "_ends.npy", mmap_mode="r")

    def __len__(self):
        return len(self.ends) - 1

    def __getitem__(self, i):
        return self.flat[self.ends[i] : self.ends[i + 1]]


ragged = functools.lru_cache(256)(Ragged)


def save_json(folder, name, content, indent=None):
    with open(os.path.join(folder, f"{name}.json"), "w") as f:
        json.dump(content, f, indent=indent)


def load_json(folder, name):
    with open(os.path.join(folder, f"{name}.json")) as f:
        return json.load(f)
