"""Checks of the Python clients: one line each, and a closing one."""
import sys
import traceback

_passed = 0
_failed = 0


def check(name):
    """Runs the function at once; it is a check that passes unless it raises."""
    def run(function):
        global _passed, _failed
        try:
            function()
            _passed += 1
            print("ok %s" % name, flush=True)
        except Exception as error:
            _failed += 1
            print("not ok %s # %s: %s" % (name, type(error).__name__, error), flush=True)
            traceback.print_exc()
    return run


def raises(kind, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError("%s was not raised" % kind.__name__)


def finish():
    print("%d passed, %d failed" % (_passed, _failed))
    sys.exit(0 if _failed == 0 else 1)
