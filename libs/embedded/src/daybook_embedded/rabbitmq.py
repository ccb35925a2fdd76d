"""How is a private RabbitMQ started and stopped?

The server is the machine's own (3.10 or newer). Two processes run: the Erlang machine, and the name
service (epmd) that it would otherwise start as a daemon, which then outlives it. The node is called
after its folder, so several may run side by side, and nothing listens beyond 127.0.0.1.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from daybook_embedded.data_directory import Home, open_home
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.ports import free_port
from daybook_embedded.probes import accepts, rabbitmq_answers
from daybook_embedded.servers import Server
from daybook_embedded.supervisor import PATH, Program

USER = "daybook"
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
DEBIAN_WRAPPER = "rabbitmq-script-wrapper"

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

# A quorum queue whose server was killed within minutes of the queue's creation comes back as a
# follower that waits for a leader for ever (rabbitmq/rabbitmq-server issue 15725). Alone in its
# cluster it wins the election that it never asks for.
ELECT = """\
[case ra:members(amqqueue:get_pid(Q), 1000) of
     {ok, _, _} -> ok;
     _ -> ra:trigger_election(amqqueue:get_pid(Q))
 end || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) == rabbit_quorum_queue].
"""


def find_rabbitmq() -> Path | None:
    """Return the machine's `rabbitmq-server` script, if it has one."""
    return next((path for path in _scripts() if os.access(path, os.X_OK) and path.is_file()), None)


class RabbitServer(Server):
    """A private RabbitMQ without plugins; what is durable on it survives a stop."""

    name = "RabbitMQ"

    def prepare(self, home: Home) -> None:
        """Create the folder of the data."""
        if find_rabbitmq() is None:
            raise EmbeddedError(
                "rabbitmq-server is not installed. Install the package of that name, or set "
                "DAYBOOK_BROKER_URL to use another server."
            )
        home.password()
        home.data.mkdir(mode=0o700, exist_ok=True)
        home.give(home.data)

    def programs(self, home: Home, *, port: int) -> Sequence[Program]:
        """Return the name service and the node."""
        script, epmd = find_rabbitmq(), find_epmd()
        if script is None or epmd is None:
            raise EmbeddedError("epmd, a part of Erlang, is not beside `erl`; reinstall Erlang.")
        names_port, node_port = free_port(), free_port()
        environment = _environment(home, names_port=names_port, node_port=node_port)
        self._control = Program(
            name="rabbitmqctl",
            command=[str(script.with_name("rabbitmqctl"))],
            environment=environment,
        )
        _configure(home, port=port)
        names = Program(
            name="epmd",
            command=[str(epmd), "-address", "127.0.0.1", "-port", str(names_port)],
        )
        return [names, Program(name="rabbitmq", command=[str(script)], environment=environment)]

    def mend(self, home: Home) -> None:
        """Give every quorum queue a leader."""
        self._run_control(["eval", ELECT], home)

    def control(self, arguments: Sequence[str]) -> None:
        """Run `rabbitmqctl` with these arguments on the running server."""
        self._run_control(arguments, open_home(self.data_dir))

    def _run_control(self, arguments: Sequence[str], home: Home) -> None:
        program = replace(self._control, command=[*self._control.command, *arguments])
        self.run(program, home)

    def answers(self, home: Home, *, port: int, pid: int) -> bool:
        """Say whether our user can log in."""
        return accepts(port) and rabbitmq_answers(port, user=USER, password=home.password())

    def address(self, home: Home, *, port: int) -> str:
        """Return the URL of the default virtual host."""
        return f"amqp://{USER}:{home.password()}@127.0.0.1:{port}/"


def find_epmd() -> Path | None:
    """Return Erlang's name service, which is on the search path or among Erlang's own programs."""
    search = f"{os.environ.get('PATH', '')}:{PATH}"
    found, erl = shutil.which("epmd", path=search), shutil.which("erl", path=search)
    if found is not None or erl is None:
        return Path(found) if found else None
    return next(Path(erl).resolve().parents[1].glob("erts-*/bin/epmd"), None)


def _scripts() -> Iterator[Path]:
    search = f"{os.environ.get('PATH', '')}:{PATH}"
    found = shutil.which("rabbitmq-server", path=search)
    if found is not None:
        # Debian's wrapper insists on its own user and folders; the script proper is beside it.
        real = Path(found).resolve()
        yield real.with_name("rabbitmq-server") if real.name == DEBIAN_WRAPPER else real
    yield DEBIAN_SCRIPTS / "rabbitmq-server"


def _environment(home: Home, *, names_port: int, node_port: int) -> dict[str, str]:
    data = home.data
    node = hashlib.sha256(os.fsencode(home.folder)).hexdigest()[:8]
    return {
        "RABBITMQ_NODENAME": f"daybook-{node}@localhost",
        "RABBITMQ_CONF_ENV_FILE": str(home.folder / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(home.folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home.folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home.folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(data / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_GENERATED_CONFIG_DIR": str(data / "generated"),
        "RABBITMQ_PID_FILE": str(data / "rabbitmq.pid"),
        "RABBITMQ_DIST_PORT": str(node_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(names_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP_BYTES": "0",
        # The script then becomes the Erlang machine, as it does for systemd, instead of minding it:
        # one process to signal and to wait for, and the right one to die with us.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _configure(home: Home, *, port: int) -> None:
    """Write the files that RabbitMQ reads, so that it reads none of the machine's."""
    settings = SETTINGS.format(port=port, user=USER, password=home.password())
    files = {
        "rabbitmq.conf": settings,
        "rabbitmq-env.conf": "",
        "advanced.config": "[].",
        "enabled_plugins": "[].",
    }
    for name, text in files.items():
        home.write(name, text)
        home.give(home.folder / name)
