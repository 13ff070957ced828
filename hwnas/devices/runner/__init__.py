"""What runs on a device: times networks in a runtime that is there, and tells what the device is.

This package is sent as it stands and run by the device's own Python (3.8 or later, with numpy and the runtime), so it
imports nothing of hwnas. The job comes in on standard input, a line of JSON and the files behind it; what is found goes
out as lines of JSON. Standard input stays open as long as somebody waits: when it ends, everything that was written is
removed and the process ends, so that a broken connection leaves nothing behind.
"""
