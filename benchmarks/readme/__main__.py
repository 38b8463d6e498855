"""Write the README's blocks, LIMITS.md and ZOO.md from the committed results: `python -m benchmarks.readme`."""

from benchmarks.readme import README, read, write_block
from benchmarks.readme.kinds import kinds
from benchmarks.readme.limits import limits
from benchmarks.readme.recipes import recipes
from benchmarks.readme.shipped import shipped
from benchmarks.readme.speed import speed
from benchmarks.readme.zoo import RESULT, zoo, zoo_page

if __name__ == "__main__":
    write_block("shipped", shipped())
    write_block("zoo", zoo())
    write_block("speed", speed())
    write_block("kinds", kinds())
    write_block("recipes", recipes())
    (README.parent / "benchmarks" / "LIMITS.md").write_text(limits(), encoding="utf-8")
    (README.parent / "benchmarks" / "ZOO.md").write_text(zoo_page(read(RESULT)), encoding="utf-8")
