"""The small models: they hear and speak on a CPU, without torch, until WeNet and XTTS are installed."""
