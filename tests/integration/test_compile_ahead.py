"""Who has compiled before boots and upgrades without a compiler."""

from pathlib import Path

import pytest

from tests.harness.lone import lone_host

pytestmark = pytest.mark.slow


def test_o3_what_is_compiled_is_loaded_by_every_start_from_then_on(tmp_path: Path) -> None:
    """By `vsfwd --compile`: neither the first start nor one after a boot compiles again, and what they load
    decides every packet."""
    cache = tmp_path / "cache"
    with lone_host(tmp_path, cache_dir=str(cache)) as host:
        host.daemon.compile_ahead()
        kept = sorted(cache.iterdir())
        assert [path.name.partition("-")[0] for path in kept] == ["datapath", "early"]
        made = [path.stat().st_ino for path in kept]
        for _ in range(2):
            host.daemon.start()
            with host.probed() as probers:
                for prober in probers:
                    prober.flowing()
            assert [line for prober in probers for line in prober.violations()] == []
            host.daemon.kill()
            host.forget()
        assert sorted(cache.iterdir()) == kept
        assert [path.stat().st_ino for path in kept] == made
