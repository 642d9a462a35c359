"""How often the gate is wrong: noise and selftest on synthetic times, rivals (what else it could
have been), micro and real on this machine."""
