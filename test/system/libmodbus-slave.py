"""A Modbus slave of Debian's libmodbus, through ctypes: every request is answered by the library itself.

  libmodbus-slave.py tcp PORT UNIT WORDS
  libmodbus-slave.py rtu PATH UNIT WORDS

WORDS: JSON list of 16-bit words, the holding and the input registers from address 0 on. Whatever lies behind them is refused
by libmodbus with exception 2. Over TCP, every fifth request is answered with the transaction id of another.
Prints "listening" when requests are taken.
"""
import ctypes
import json
import sys

lib = ctypes.CDLL("libmodbus.so.5", use_errno=True)


class Mapping(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in (
        "nb_bits", "start_bits", "nb_input_bits", "start_input_bits",
        "nb_input_registers", "start_input_registers", "nb_registers", "start_registers")] + [
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)), ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)), ("tab_registers", ctypes.POINTER(ctypes.c_uint16))]


lib.modbus_new_tcp.restype = lib.modbus_new_rtu.restype = ctypes.c_void_p
lib.modbus_new_rtu.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char, ctypes.c_int, ctypes.c_int]
lib.modbus_mapping_new.restype = ctypes.POINTER(Mapping)
lib.modbus_strerror.restype = ctypes.c_char_p


def check(result, what):
    if result == -1 or result is None:
        raise SystemExit(f"{what}: {lib.modbus_strerror(ctypes.get_errno()).decode()}")
    return result


kind, where, unit, words = sys.argv[1:]
words = json.loads(words)
mapping = lib.modbus_mapping_new(0, 0, len(words), len(words))
for at, word in enumerate(words):
    mapping.contents.tab_registers[at] = mapping.contents.tab_input_registers[at] = word

if kind == "tcp":
    context = ctypes.c_void_p(check(lib.modbus_new_tcp(b"127.0.0.1", int(where)), "modbus_new_tcp"))
else:
    context = ctypes.c_void_p(check(lib.modbus_new_rtu(where.encode(), 9600, b"N", 8, 1), "modbus_new_rtu"))
check(lib.modbus_set_slave(context, int(unit)), "modbus_set_slave")

query = (ctypes.c_uint8 * 260)()
requests = 0
listener = ctypes.c_int(-1)
if kind == "tcp":
    listener.value = check(lib.modbus_tcp_listen(context, 4), "modbus_tcp_listen")
    print("listening", flush=True)
    check(lib.modbus_tcp_accept(context, ctypes.byref(listener)), "modbus_tcp_accept")
else:
    check(lib.modbus_connect(context), "modbus_connect")
    print("listening", flush=True)

while True:
    length = lib.modbus_receive(context, query)
    if length == -1:
        if kind != "tcp":
            continue
        lib.modbus_close(context)  # the other side went away
        check(lib.modbus_tcp_accept(context, ctypes.byref(listener)), "modbus_tcp_accept")
        continue
    if length == 0:
        continue  # for another unit
    requests += 1
    if kind == "tcp" and requests % 5 == 0:
        query[1] ^= 0x55
    lib.modbus_reply(context, query, length, mapping)
