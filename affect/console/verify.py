"""A store read back: what is damaged, so that deleting it and running the same command again repairs the store."""

from concurrent.futures import ThreadPoolExecutor

from affect.console.exits import EXIT_NOTHING, EXIT_OK, EXIT_PARTIAL
from affect.progress import Meter, say
from affect.storage.store import Store

NUM_THREADS = 16


def verify(store: Store) -> int:
    """Read every object and compare it with the length and checksum that were written with it.

    Args:
        store: the store.

    Returns:
        0 if all is whole, 3 if something is damaged, 1 if there is nothing.
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
