"""`vsfwctl vnic`: which device is the vNIC of which VM, for the hook of a hypervisor, or by hand."""

from pathlib import Path

import click

import vsfwd.ipc.interface as api
from vsfwd.announcement import announced
from vsfwd.ctl.shell import ask


@click.group(short_help="Which device is which VM's, for a hypervisor's hook.")
def vnic() -> None:
    """Which device is the vNIC of which VM, for the hook of a hypervisor, or by hand. It takes root, or a
    user of ipc_uids."""


@vnic.command(short_help="A device is, or will be, a vNIC of a VM.")
@click.argument("device")
@click.option("--vnic", metavar="UUID", required=True, help="Of the vNIC: the same wherever the VM runs.")
@click.option("--vm", metavar="UUID", required=True, help="Of the VM.")
@click.option("--mac", metavar="MAC", required=True, help="Of the vNIC, as the guest has it.")
@click.option("--name", metavar="NAME", help="How the VM is called.")
@click.option("--segment", metavar="ID", help="The one it is on; the manager has to have it.")
@click.option(
    "--address", multiple=True, metavar="ADDRESS", help="As the guest's tools say. May be repeated."
)
@click.pass_obj
def announce(
    socket: Path,
    device: str,
    vnic: str,
    vm: str,
    mac: str,
    name: str | None,
    segment: str | None,
    address: tuple[str, ...],
) -> None:
    """DEVICE, a veth or a tap, is the vNIC of a VM. Where it is there, it is filtered when this ends: put it
    into its bridge, or bring it up, after that."""
    guest, addresses = api.GuestInfo(name=name), list(address)
    try:
        announced(vnic, vm, mac, device, guest, segment or "", addresses)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    ask(
        socket,
        lambda proxy: proxy.AnnounceVnic(
            vnic=vnic, vm=vm, mac=mac, device=device, guest=guest, segment=segment, addresses=addresses
        ),
    )


@vnic.command(short_help="A vNIC is gone.")
@click.argument("vnic", metavar="UUID")
@click.pass_obj
def withdraw(socket: Path, vnic: str) -> None:
    """The vNIC is gone. Its device, if it is there, is closed where it is a guarded port, else not filtered
    any more."""
    ask(socket, lambda proxy: proxy.WithdrawVnic(vnic=vnic))
