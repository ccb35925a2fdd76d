"""A private RabbitMQ node, from the installed `rabbitmq-server` (3.10 or newer).

Two processes run: the Erlang VM, and its name service (epmd), which the VM would otherwise start as
a daemon that outlives it. The node name is derived from the folder, so several nodes may run side
by side, and all ports listen on 127.0.0.1 only.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from daybook_embedded.data_directory import DataDirectory, open_data_directory
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.ports import free_port
from daybook_embedded.servers import Server
from daybook_embedded.supervisor import PATH, Child, Program

USER = "daybook"
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
DEBIAN_WRAPPER = "rabbitmq-script-wrapper"
# Printed to standard output, whatever the log settings are, after the listeners are started.
READY_OUTPUT = "completed with 0 plugins."

SETTINGS = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
default_user_tags.administrator = true
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 64MB
raft.wal_max_size_bytes = 67108864
log.console = true
log.console.level = warning
log.file = false
"""

# A quorum queue whose node was killed within minutes of the queue's creation restarts as a follower
# that never starts an election (rabbitmq/rabbitmq-server issue 15725), so start one for each such
# queue. This can go when the oldest supported RabbitMQ has the fix.
ELECT_LEADERS = """\
[case ra:members(amqqueue:get_pid(Q), 1000) of
     {ok, _, _} -> ok;
     _ -> ra:trigger_election(amqqueue:get_pid(Q))
 end || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) == rabbit_quorum_queue].
"""


def find_rabbitmq() -> Path | None:
    """Return the installed `rabbitmq-server` script, or None."""
    return next((path for path in _scripts() if os.access(path, os.X_OK) and path.is_file()), None)


class RabbitServer(Server):
    """A private RabbitMQ without plugins; durable queues and messages survive a stop."""

    name = "RabbitMQ"

    def prepare(self, directory: DataDirectory) -> None:
        """Create the data folder."""
        if find_rabbitmq() is None:
            raise EmbeddedError(
                "rabbitmq-server is not installed. Install the package of that name, or set "
                "DAYBOOK_BROKER_URL to use another server."
            )
        directory.ensure_password()
        directory.data.mkdir(mode=0o700, exist_ok=True)
        directory.chown_to_account(directory.data)

    def programs(self, directory: DataDirectory, *, port: int) -> Sequence[Program]:
        """Return the name service and the node."""
        script, epmd = find_rabbitmq(), find_epmd()
        if script is None or epmd is None:
            raise EmbeddedError("epmd, a part of Erlang, is not beside `erl`; reinstall Erlang.")
        epmd_port, node_port = free_port(), free_port()
        environment = _environment(directory, epmd_port=epmd_port, node_port=node_port)
        self._rabbitmqctl = Program(
            name="rabbitmqctl",
            command=[str(script.with_name("rabbitmqctl"))],
            environment=environment,
        )
        _write_configuration(directory, port=port)
        name_service = Program(
            name="epmd",
            command=[str(epmd), "-address", "127.0.0.1", "-port", str(epmd_port)],
        )
        node = Program(name="rabbitmq", command=[str(script)], environment=environment)
        return [name_service, node]

    def is_ready(self, directory: DataDirectory, child: Child) -> bool:
        """Return whether the node has printed that its start is complete."""
        return READY_OUTPUT in child.output()

    def recover(self, directory: DataDirectory) -> None:
        """Elect a leader for every quorum queue without one."""
        self._run_rabbitmqctl(["eval", ELECT_LEADERS], directory)

    def control(self, arguments: Sequence[str]) -> None:
        """Run `rabbitmqctl` with these arguments on the running server."""
        self._run_rabbitmqctl(arguments, open_data_directory(self.data_dir))

    def _run_rabbitmqctl(self, arguments: Sequence[str], directory: DataDirectory) -> None:
        program = replace(self._rabbitmqctl, command=[*self._rabbitmqctl.command, *arguments])
        self.run(program, directory)

    def url_for(self, directory: DataDirectory, *, port: int) -> str:
        """Return the URL of the default virtual host."""
        return f"amqp://{USER}:{directory.ensure_password()}@127.0.0.1:{port}/"


def find_epmd() -> Path | None:
    """Return Erlang's name service from the search path or Erlang's own folder, or None."""
    search = f"{os.environ.get('PATH', '')}:{PATH}"
    found, erl = shutil.which("epmd", path=search), shutil.which("erl", path=search)
    if found is not None or erl is None:
        return Path(found) if found else None
    return next(Path(erl).resolve().parents[1].glob("erts-*/bin/epmd"), None)


def _scripts() -> Iterator[Path]:
    search = f"{os.environ.get('PATH', '')}:{PATH}"
    found = shutil.which("rabbitmq-server", path=search)
    if found is not None:
        # Debian's wrapper requires its own user and folders; the actual script is beside it.
        real = Path(found).resolve()
        yield real.with_name("rabbitmq-server") if real.name == DEBIAN_WRAPPER else real
    yield DEBIAN_SCRIPTS / "rabbitmq-server"


def _environment(directory: DataDirectory, *, epmd_port: int, node_port: int) -> dict[str, str]:
    data = directory.data
    node = hashlib.sha256(os.fsencode(directory.folder)).hexdigest()[:8]
    return {
        "RABBITMQ_NODENAME": f"daybook-{node}@localhost",
        "RABBITMQ_CONF_ENV_FILE": str(directory.folder / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(directory.folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory.folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory.folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(data / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_GENERATED_CONFIG_DIR": str(data / "generated"),
        "RABBITMQ_PID_FILE": str(data / "rabbitmq.pid"),
        "RABBITMQ_DIST_PORT": str(node_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP_BYTES": "0",
        # With this the script replaces itself by the Erlang VM instead of supervising it, so there
        # is one process to signal and to wait for, and it gets the parent death signal.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _write_configuration(directory: DataDirectory, *, port: int) -> None:
    """Write every file that RabbitMQ reads, so that it reads none of the machine's."""
    settings = SETTINGS.format(port=port, user=USER, password=directory.ensure_password())
    files = {
        "rabbitmq.conf": settings,
        "rabbitmq-env.conf": "",
        "advanced.config": "[].",
        "enabled_plugins": "[].",
    }
    for name, text in files.items():
        directory.write(name, text)
        directory.chown_to_account(directory.folder / name)
