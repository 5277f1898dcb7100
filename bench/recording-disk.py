# A disk in memory that records what is written to it: a plugin of nbdkit (nbdkit-python-plugin(3)).
#
# Parameters: size=BYTES  control=FILE  log=FILE  base=FILE
# control holds two little-endian integers of 32 bits: whether to record, and how many answers the application has given so far.
# When recording begins, the disk goes to `base`. From then on each request is one entry in `log`: type (1 write, 2 flush), 3 bytes of
# nothing, the answers given when it came, offset (64 bits), length (32 bits), 4 bytes of nothing, then the bytes.
import io
import mmap
import struct

import nbdkit

API_VERSION = 2
parameters = {}
disk = None
control = None
log = None


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def config(key, value):
    parameters[key] = value


def config_complete():
    for name in ("size", "control", "log", "base"):
        if name not in parameters:
            raise RuntimeError("parameter %s is missing" % name)


def get_ready():
    global disk, control
    disk = bytearray(int(parameters["size"]))
    with io.open(parameters["control"], "r+b") as file:
        control = mmap.mmap(file.fileno(), 8)


def open(readonly):
    return 1


def get_size(h):
    return len(disk)


def can_fua(h):
    return nbdkit.FUA_EMULATE


def pread(h, buf, offset, flags):
    buf[:] = disk[offset : offset + len(buf)]


def record(kind, offset, data):
    global log
    recording, answers = struct.unpack("<II", control[:8])
    if not recording:
        return
    if log is None:
        with io.open(parameters["base"], "wb") as file:
            file.write(disk)
        log = io.open(parameters["log"], "wb", 0)
    log.write(struct.pack("<B3xIQI4x", kind, answers, offset, len(data)) + bytes(data))


def pwrite(h, buf, offset, flags):
    record(1, offset, buf)
    disk[offset : offset + len(buf)] = buf


def flush(h, flags):
    record(2, 0, b"")

