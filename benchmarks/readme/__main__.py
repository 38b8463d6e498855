"""Write the README's blocks and LIMITS.md from the committed results: `python -m benchmarks.readme`."""

from benchmarks.readme import README, write_block
from benchmarks.readme.kinds import kinds
from benchmarks.readme.limits import limits
from benchmarks.readme.recipes import recipes
from benchmarks.readme.shipped import shipped
from benchmarks.readme.speed import speed

if __name__ == "__main__":
    write_block("shipped", shipped())
    write_block("speed", speed())
    write_block("kinds", kinds())
    write_block("recipes", recipes())
    (README.parent / "benchmarks" / "LIMITS.md").write_text(limits(), encoding="utf-8")
