"""Every bad input of every op is refused by every kernel: the named exception, the words that help,
and nothing launched or written."""


def test_bad_inputs(judge, op, kernel):
    refused = [judge.judge_refusal(op, kernel, n) for n in range(len(op.refusals))]
    accepted = [verdict.reason for verdict in refused if not verdict.ok]
    assert [] == accepted
