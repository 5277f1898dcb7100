"""A Modbus slave of Debian's python3-pymodbus, no code of ours in it: the input registers given, served until it is ended.

  pymodbus-slave.py socket|rtu PORT UNIT REGISTERS

socket: Modbus TCP on 127.0.0.1:PORT. rtu: the frames of a serial line on that port, for socat to put on a pty.
REGISTERS: JSON {"address": float, …}; each float becomes two input registers, float32, high word first. Or a list of words:
the input and the holding registers from address 0 on, whatever lies behind them is refused.
Prints "listening" when connections are taken.
"""
import asyncio
import json
import struct
import sys
from unittest.mock import MagicMock

try:
    import serial
    import serial_asyncio
except ImportError:
    # pymodbus 3.0 imports both with its servers, and Debian's package does not depend on them. Only serial lines need them.
    sys.modules.update({"serial": MagicMock(), "serial_asyncio": MagicMock()})

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartAsyncTcpServer

try:
    from pymodbus.framer import FramerType

    FRAMERS = {"socket": FramerType.SOCKET, "rtu": FramerType.RTU}
except ImportError:  # before 3.7
    from pymodbus.transaction import ModbusRtuFramer, ModbusSocketFramer

    FRAMERS = {"socket": ModbusSocketFramer, "rtu": ModbusRtuFramer}


def context(unit, floats):
    if isinstance(floats, list):
        block = ModbusSequentialDataBlock(1, floats)
        return ModbusServerContext(slaves={unit: ModbusSlaveContext(ir=block, hr=block)}, single=False)
    words = [0] * 0x180
    for address, value in floats.items():
        words[int(address) : int(address) + 2] = struct.unpack(">HH", struct.pack(">f", value))
    # A block's addresses begin at 1, since the protocol's address 0 is the register 1 (V1.1b3 §4.4).
    return ModbusServerContext(slaves={unit: ModbusSlaveContext(ir=ModbusSequentialDataBlock(1, words))}, single=False)


async def tell_when_listening(port):
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            print("listening", flush=True)
            return
        except OSError:
            await asyncio.sleep(0.05)


async def main():
    framer, port, unit, registers = sys.argv[1:]
    slave = context(int(unit), json.loads(registers))
    server = StartAsyncTcpServer(context=slave, framer=FRAMERS[framer], address=("127.0.0.1", int(port)))
    await asyncio.gather(server, tell_when_listening(int(port)))


asyncio.run(main())
