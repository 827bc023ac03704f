"""Cases run one by one or two at a time; what they print is not mixed, and an interrupt stops what they have started."""

import multiprocessing
import signal
import sys


def interrupted(*_):
    """Ctrl-C or TERM: once, so that a second signal does not break off the stopping."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


class Turns:
    """What two processes share: which case is next, when the second may begin, who prints."""

    def __init__(self, cases, make_broker, run_case):
        self.cases, self.make_broker, self.run_case = cases, make_broker, run_case
        self.next, self.may_begin, self.printing = multiprocessing.Value("i", 0), multiprocessing.Event(), multiprocessing.Lock()

    def take(self, limit):
        """The next case that nobody has taken, of the first so many; None when there is none."""
        with self.next.get_lock():
            if self.next.value >= limit:
                return None
            self.next.value += 1
            return self.cases[self.next.value - 1]

    def run(self, broker, limit):
        """Whether all that this process took were good."""
        good = True
        while case := self.take(limit):
            fine, lines = self.run_case(broker, case)
            good = fine and good
            with self.printing:
                print("\n".join(lines), flush=True)
        return good

    def run_beside(self):
        """The second process, with a broker of its own."""
        good, broker = True, None
        try:
            self.may_begin.wait()
            if self.next.value < len(self.cases):
                broker = self.make_broker("broker-beside")
                good = self.run(broker, len(self.cases))
        except KeyboardInterrupt:
            good = False
        finally:
            if broker:
                broker.stack.stop()
        sys.exit(0 if good else 1)


def take(cases, two, make_broker, run_case):
    """Run (name, function, options) cases: with `two` those whose function is `alone` first, one by one, then two at a time.
    make_broker(name): what all cases of one process share; run_case(broker, case): whether it is good, and its lines.
    Whether all were good."""
    if two:
        cases = sorted(cases, key=lambda c: not c[1].alone)
    alone = sum(c[1].alone for c in cases) if two else len(cases)
    turns = Turns(cases, make_broker, run_case)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    broker, second = None, None
    try:
        if len(cases) - alone > 1:
            # Before anything of librdkafka runs here, whose threads a fork would not copy.
            second = multiprocessing.get_context("fork").Process(target=turns.run_beside)
            second.start()
        broker = make_broker("broker")
        good = turns.run(broker, alone)
        turns.may_begin.set()
        good = turns.run(broker, len(cases)) and good
    except BaseException:
        turns.next.value = len(cases)
        if second:
            second.terminate()
        raise
    finally:
        turns.may_begin.set()
        if broker:
            broker.stack.stop()
        if second:
            second.join()
    return good and (not second or second.exitcode == 0)
