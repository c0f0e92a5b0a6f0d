"""``python -m poe_gateway``: the same as ``poe-gateway``."""

from poe_gateway.cli import main

if __name__ == "__main__":
    main(prog_name="poe-gateway")
