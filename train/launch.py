"""Being started and stopped: processes, threads, signals, launchers that die first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import torch
from accelerate import Accelerator

from train.options import RunOptions

LAUNCHER_MARK = "FGDEMO_STARTED_BY"
"""Set by commands of this project that start others and wait for them."""

# Any of these in the environment means that a launcher started this process and will wait for it.
_LAUNCHER_MARKS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID", LAUNCHER_MARK)


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a request that the loop answers between two steps.

    A second Ctrl-C ends the process at once. Also watches the launcher: if it dies, nobody would ever stop this
    process, so it behaves as if it had got SIGTERM.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if any(mark in os.environ for mark in _LAUNCHER_MARKS):
            threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()

    @property
    def requested(self) -> bool:
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """The shell's convention: 128 plus the number of the signal."""
        return 128 + (self.number or 0)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.number == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


def leave_signals_to_parent(_worker: int) -> None:
    """For loader workers: out of the trainer's process group, which a terminal or a launcher signals as a whole.

    Whether to go on, and until when a batch is still needed, is for the trainer to say. Workers end when it does, and
    when it terminates them.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def make_accelerator(options: RunOptions, **kwargs: object) -> Accelerator:
    """The Accelerator of this process: the processor when asked for or when there is nothing else."""
    if options.threads:
        torch.set_num_threads(options.threads)
    cpu = options.device == "cpu" or not torch.accelerator.is_available()
    native = computes_in_bf16("cpu" if cpu else torch.accelerator.current_accelerator().type)
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if native else "no"
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, **kwargs)
    if accelerator.mixed_precision == "bf16" and not native:
        accelerator.print(
            f"This {accelerator.device.type} does not support bf16 and may emulate it, many times slower: "
            "--precision auto or no avoids that.",
            file=sys.stderr,
        )
    return accelerator


def computes_in_bf16(device_type: str) -> bool:
    """Whether a kind of device has instructions for bf16, without which it takes several times as long as float32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        # Asked of oneDNN, the answer would be yes wherever it can emulate them. Older versions of torch cannot tell.
        has = getattr(torch.cpu, "get_capabilities", dict)()
        return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return device_type == "xpu"


def _follow_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
