"""The process: console, device, sibling processes, memory."""
