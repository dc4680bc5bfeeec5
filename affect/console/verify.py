"""Checks every object of a store. To repair it, delete the damaged objects and run the same command again."""

from concurrent.futures import ThreadPoolExecutor

from affect.console.exits import EXIT_NOTHING, EXIT_OK, EXIT_PARTIAL
from affect.progress import Meter, say
from affect.storage.store import Store

NUM_THREADS = 16


def verify(store: Store) -> int:
    """Reads every object and compares it with its recorded length and checksum.

    Args:
        store: the store.

    Returns:
        0 if no object is damaged, 3 if one is, 1 if the store is empty.
    """
    keys = sorted(store.keys())
    if not keys:
        say(f"verify: there is nothing in {store.uri}")
        return EXIT_NOTHING
    bad = []
    with ThreadPoolExecutor(NUM_THREADS) as threads, Meter("verify", float(len(keys)), "objects") as meter:
        for wrong in threads.map(store.check, keys):
            if wrong:
                bad.append(wrong)
            meter.advance(1.0, f"{len(bad)} damaged" if bad else "")
    for wrong in bad:
        say(wrong)
    say(f"verify: {len(keys):,} objects, {len(bad)} damaged: {store.uri}")
    return EXIT_PARTIAL if bad else EXIT_OK
