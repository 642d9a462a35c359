"""The gate: may this change of kernels land? `python -m benchmarks.gate --base origin/main`.

    trees        both sides as folders, named by content
    builds       both sides compiled, named by content
    machine_code what nvcc makes of every kernel; static: head against base, what changed
    correctness  conformance, sanitizer, compile table of what changed
    accuracy     is head less accurate than base on the same cases?
    work         does a kernel do more on the executor? (no GPU needed)
    speed        both builds timed by turns in fresh processes, judged by benchmarks.stats
    pipeline     the stages one after the other; report: what they found; outputs: how it is told
    processes/   what runs in processes of its own, where both builds are loaded
    proof/       how often the gate is wrong: on synthetic noise, and on a real machine

docs/gate.md says how to read it and what is known about its errors.
"""
