"""Masters of the Modbus benchmark that are not JavaScript: modbus-peers.py libmodbus|pymodbus JSON, as modbus-master.ts takes it.

Orders carry the requests themselves: {"polls", "units", "requests": [[address, count], …], "wordSum"}. libmodbus is Debian's libmodbus5 through
ctypes, pymodbus Debian's python3-pymodbus over python3-serial; each with its own time-outs and silences as it comes.
"""
import ctypes
import json
import sys
import time
from unittest.mock import MagicMock

TIMEOUT_S = 2


def open_libmodbus(path, baud, parity, stop_bits):
    library = ctypes.CDLL("libmodbus.so.5", use_errno=True)
    library.modbus_new_rtu.restype = ctypes.c_void_p
    library.modbus_new_rtu.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char, ctypes.c_int, ctypes.c_int]
    context = ctypes.c_void_p(library.modbus_new_rtu(path.encode(), baud, parity.encode(), 8, stop_bits))
    library.modbus_set_response_timeout(context, ctypes.c_uint32(TIMEOUT_S), ctypes.c_uint32(0))
    if library.modbus_connect(context) != 0:
        raise OSError(ctypes.get_errno(), "libmodbus could not open " + path)
    words = (ctypes.c_uint16 * 125)()

    def read(unit, address, count):
        library.modbus_set_slave(context, unit)
        if library.modbus_read_input_registers(context, address, count, words) != count:
            raise OSError(ctypes.get_errno(), "libmodbus")
        return sum(words[:count])

    return read


def open_pymodbus(path, baud, parity, stop_bits):
    try:
        import serial_asyncio
    except ImportError:
        # pymodbus 3.0 imports it with its asynchronous clients, and Debian's package does not depend on it.
        sys.modules["serial_asyncio"] = MagicMock()
    from pymodbus.client import ModbusSerialClient

    if parity == "E":
        # pyserial takes it for a failure that a pty drops PARENB. A second stop bit makes the character as long.
        parity, stop_bits = "N", 2
    client = ModbusSerialClient(port=path, baudrate=baud, parity=parity, stopbits=stop_bits, timeout=TIMEOUT_S)
    if not client.connect():
        raise OSError("pymodbus could not open " + path)

    def read(unit, address, count):
        return sum(client.read_input_registers(address, count, slave=unit).registers)

    return read


def main():
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    open_peer = {"libmodbus": open_libmodbus, "pymodbus": open_pymodbus}[kind]
    read = open_peer(options["paths"][0], options["baud"], options["parity"][0].upper(), options["stopBits"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        failed = wrong = 0
        cpu, start = time.process_time(), time.monotonic()
        for poll in range(order["polls"]):
            unit, word_sum, failed_before = order["units"][poll % len(order["units"])], 0, failed
            for address, count in order["requests"]:
                try:
                    word_sum += read(unit, address, count)
                except Exception:
                    failed += 1
            if failed == failed_before and word_sum != order["wordSum"]:
                wrong += 1
        report = {
            "elapsedMs": (time.monotonic() - start) * 1000,
            "cpuMs": (time.process_time() - cpu) * 1000,
            "failed": failed,
            "wrong": wrong,
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
