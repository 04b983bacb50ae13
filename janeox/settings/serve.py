"""The settings of the server."""

from dataclasses import dataclass
from typing import Literal

from janeox.errors import JaneoxError


@dataclass
class Serve:
    """Serves a model over OpenAI's HTTP interface, with a page to try it on."""

    model: str = ""
    """Folder or Hugging Face Hub id, also as a bare argument; empty: the newest of runs/*/model."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of the machine's, and then set an API key."""
    port: int = 8000
    api_key: str = ""
    """Clients must send it as `Authorization: Bearer KEY`; empty asks for none. JANEOX_API_KEY in the environment is
    read where this is empty, and does not show in the list of processes."""
    name: str = ""
    """The model's name for clients; empty: the folder's."""
    slots: int = 16
    """Texts written at once; each holds a context's keys and values in memory."""
    waiting: int = 1024
    """Texts that may wait for a slot; more are refused with 429."""
    max_tokens: int = 2048
    """The most tokens that a request may ask for."""
    max_body_bytes: int = 1_000_000
    """Larger requests are refused with 413."""
    client_seconds: float = 20.0
    """How long a client may keep the server waiting: for a request's headers, for its body (then 408), or for what is
    sent to it to be taken (then the connection is cut)."""
    request_seconds: float = 600.0
    """A request that is not answered after this long ends with an error."""
    shutdown_seconds: int = 60
    """After SIGTERM, how long the running requests may take to finish."""
    allow_origin: tuple[str, ...] = ()
    """Origins whose pages may call the server from a browser (CORS); none by default."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0, mps."""
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""
    bits: Literal[32, 16, 8, 4] | None = None
    """Of the weights, where the native kernels run; by default those that the dtype has."""
    use_mmap: bool = False
    """Several servers share the memory of one model that `janeox quantize` wrote, at the price of some speed."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        for name in ("slots", "waiting", "max_tokens", "max_body_bytes", "client_seconds", "request_seconds"):
            if not getattr(self, name) > 0:
                raise JaneoxError(f"{name} = {getattr(self, name)}: must be above 0")
        if not 0 <= self.port < 65536:
            raise JaneoxError(f"port = {self.port}: must lie between 0 and 65535")
