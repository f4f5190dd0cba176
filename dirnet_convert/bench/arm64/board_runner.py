"""Runs a job on a board with Python's standard library, onnxruntime and numpy alone.

This file travels: it is copied to the board beside the job, and imports nothing of dirnet. The statements of
a job and the answer are those of kernels/runner/runner.cc. Works with Python 3.8 and newer.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

import numpy as np
import onnxruntime

_PAUSE_S = 0.005


class Engine:
    """A model and what goes in and out of it."""

    def __init__(self, name, model, with_operators):
        self.name = name
        self.model = model
        self.with_operators = with_operators
        self.inputs = {}
        self.outputs = []


class Session:
    """One engine opened, with its inputs and outputs bound beforehand."""

    def __init__(self, engine, operators, threads, profile_prefix=""):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        if profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        if engine.with_operators:
            options.register_custom_ops_library(os.path.abspath(operators))
        self.engine = engine
        self.session = onnxruntime.InferenceSession(engine.model, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        for name, value in engine.inputs.items():
            self.binding.bind_cpu_input(name, value)
        for name, _ in engine.outputs:
            self.binding.bind_output(name, "cpu")

    def run(self):
        """One inference."""
        self.session.run_with_iobinding(self.binding)

    def run_and_write(self):
        """One inference whose outputs are written."""
        self.run()
        values = self.binding.copy_outputs_to_cpu()
        for (_, path), value in zip(self.engine.outputs, values):  # noqa: B905 (Python 3.8 has no strict)
            value.tofile(path)


class Job:
    """The statements of a job, obeyed one after the other."""

    def __init__(self):
        self.operators = ""
        self.threads = 1
        self.engines = {}

    def run(self, lines):
        """Obey ``lines``."""
        say("runtime", onnxruntime.__version__)
        for line in lines:
            words = line.split()
            if words and words[0] != "runtime":
                getattr(self, "do_" + words[0])(*words[1:])
        say("done")

    def do_operators(self, path):
        self.operators = path

    def do_threads(self, threads):
        self.threads = int(threads)
        say("threads", threads)

    def do_engine(self, name, model, kind):
        self.engines[name] = Engine(name, model, kind == "dirnet")

    def do_input(self, engine, name, kind, path, _rank, *dims):
        value = np.fromfile(path, dtype=kind).reshape([int(dim) for dim in dims])
        self.engines[engine].inputs[name] = value

    def do_output(self, engine, name, path):
        self.engines[engine].outputs.append((name, path))

    def do_check(self):
        for session in self.open():
            session.run_and_write()

    def do_time(self, rounds, block_ms, warmup):
        sessions = self.open()
        calls = []
        for session in sessions:
            for _ in range(int(warmup)):
                session.run()
            once_ms = max(measured_ms(session, 3), 1e-4)
            calls.append(max(3, min(10000, round(float(block_ms) / once_ms))))
        for number in range(int(rounds)):
            others, began = others_s(), time.perf_counter()
            order = list(range(len(sessions)))
            # Every other round backwards: no engine always follows the same one.
            for k in order if number % 2 == 0 else reversed(order):
                say("round", number, sessions[k].engine.name, f"{measured_ms(sessions[k], calls[k]):.6f}")
            if others is not None:
                load = (others_s() - others) / (time.perf_counter() - began)
                say("load", number, f"{max(load, 0.0):.4f}")

    def do_profile(self, runs, turns):
        prefix = f"profile_{self.threads}_"
        sessions = [Session(e, self.operators, self.threads, prefix + e.name) for e in self.engines.values()]
        for _ in range(int(turns)):
            for session in sessions:
                for _ in range(int(runs)):
                    session.run()
        for session in sessions:
            say("profile", session.engine.name, session.session.end_profiling())

    def open(self):
        """Open every engine with the present number of threads."""
        return [Session(engine, self.operators, self.threads) for engine in self.engines.values()]


def say(*words):
    """Print a line of the answer at once: the other end may be waiting for it."""
    print(*words, flush=True)


def measured_ms(session, calls):
    """Return the median time of an inference; a first one is not counted, as the caches are cold."""
    time.sleep(_PAUSE_S)
    session.run()
    times = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        session.run()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1e6


def others_s():
    """Return the processor time of everything but this process, None where the system tells none."""
    try:
        with open("/proc/stat") as file:
            fields = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return None
    busy = sum(fields) - fields[3] - fields[4]
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


def report(_kind, error, _trace):
    """Print an error as the answer's last line."""
    say("error", " ".join(str(error).split()))


if __name__ == "__main__":
    sys.excepthook = report
    with open(sys.argv[1]) as job_file:
        Job().run(job_file.read().splitlines())
