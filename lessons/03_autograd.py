"""Autograd: how the loss tells every weight which way to move.

You learn what a gradient is, how a tape of a computation is read backwards to get all gradients at once, how the
package does it for arrays, how a gradient is checked by differences, and what `no_grad` saves.

In the article: nowhere, but every "training" in it rests on this. In the papers: Baydin et al. 2018, Automatic
Differentiation in Machine Learning: a Survey, section 3.2 (reverse mode).
In the package: `minimrcnn/tensor.py`, all of it; `minimrcnn/reference.py` (conv2d_gradient); the backward half of
`minimrcnn/functional/conv.py`.
Before: NumPy, the word "slope"; lesson 2 for the gradients of a convolution.
"""

# %%
import tracemalloc

import matplotlib.pyplot as plt
import numpy as np
from style import BLACK, BLUE, GRAY, GREEN, ORANGE, RED, agree, save, section

from minimrcnn import Tensor, functional, no_grad, reference
from minimrcnn.tensor import Function, gradcheck

# %% What a gradient is
section("A gradient is a slope for every input")

# A model of one weight w and one bias b predicts w * x + b. For x = 3 it should have said t = 4. One number, the
# loss, says how wrong it is: the squared error, plus 0.5 * w * w, which keeps weights small. Training makes it small.


def loss_of(w, x, b):
    error = w * x + b - 4.0
    return error * error + 0.5 * w * w


agree("loss at w = 2, x = 3, b = -1", loss_of(2, 3, -1), 3)
# The slope of the loss by w: nudge w a little, see how much the loss moves, divide. (One nudge up and one down.)
h = 1e-6
nudges = [(h, 0, 0), (0, h, 0), (0, 0, h)]
slopes = [(loss_of(2 + i, 3 + j, -1 + k) - loss_of(2 - i, 3 - j, -1 - k)) / (2 * h) for i, j, k in nudges]
agree("slopes by w, x, b, from differences", slopes, [8, 4, 2])
# The list of slopes is the gradient. It points uphill, so training moves w and b a bit against it. But two runs for
# every number are too many: Mask R-CNN has 44 million weights. The tape finds all slopes in one way back.

# %% A tape for numbers
section("A tape for numbers")

# Write down every step while computing: its result, its inputs, and its slope by each of them. For a * b the slope by a
# is b, and by b it is a; for a + b both are 1. Then read the tape backwards. The loss moves with itself by 1. If it
# moves with a result by some gradient, it moves with an input of it by that gradient times the slope (the chain rule).
# A number that was used twice gets two parts, and they are added.
tape = []


class Number:
    def __init__(self, value, name=""):
        self.value, self.name, self.gradient = value, name, 0.0

    def __add__(self, other):
        return write("sum", self.value + other.value, (self, 1.0), (other, 1.0))

    def __mul__(self, other):
        return write("product", self.value * other.value, (self, other.value), (other, self.value))


def write(operation, value, *inputs):
    result = Number(value, operation)
    tape.append((result, inputs))
    return result


def read_backwards(last):
    last.gradient = 1.0
    for result, inputs in reversed(tape):  # whoever used `result` comes later on the tape and has been read
        for number, slope in inputs:
            number.gradient += result.gradient * slope


w, x, b = Number(2.0, "w"), Number(3.0, "x"), Number(-1.0, "b")
minus_t, half = Number(-4.0, "-t"), Number(0.5, "half")
error = w * x + b + minus_t
loss = error * error + half * w * w
read_backwards(loss)
agree("loss, and gradients of w, x, b", [loss.value, w.gradient, x.gradient, b.gradient], [3, 8, 4, 2])
print(f"{len(tape)} entries on the tape, each read once")

# The tape as a graph. w is used three times; its parts are 2 * 3 = 6, 2 * 0.5 = 1 and 1 * 1 = 1, together 8.
leaves = [(minus_t, 5), (b, 4), (x, 3), (w, 1.4), (half, 0)]
results = [(1, 2.2), (2, 3), (3, 3.6), (4, 3.6), (1, 0.5), (2, 0.9), (5, 2.4)]  # in the tape's order
places = {number: (0, row) for number, row in leaves}
places |= {result: place for (result, _), place in zip(tape, results, strict=True)}
figure, axes = plt.subplots(figsize=(11, 4.8))
for result, inputs in tape:
    for index, (number, slope) in enumerate(inputs):
        twice = inputs[0][0] is inputs[1][0]  # two arrows, one bent up, one down
        look = {"arrowstyle": "-|>", "color": GRAY, "shrinkA": 30, "shrinkB": 30}
        look["connectionstyle"] = f"arc3,rad={0.5 * index - 0.25 if twice else 0}"
        axes.annotate("", places[result], places[number], arrowprops=look)
        middle = np.mean([places[result], places[number]], axis=0) + [0, (0.26 - 0.52 * index) * twice]
        axes.text(*middle, f"{slope:g}", color=BLUE, ha="center", va="center", backgroundcolor="white", fontsize=9)
for number, place in places.items():
    box = {"boxstyle": "round", "facecolor": "#FFF3DC" if place[0] == 0 else "white", "edgecolor": ORANGE}
    words = f"{number.name}\nvalue {number.value:g}\ngradient {number.gradient:g}"
    axes.text(*place, words, ha="center", va="center", fontsize=9, bbox=box)
axes.set(xlim=(-0.4, 5.4), ylim=(-0.5, 5.5))
axes.set_title("Values go right. Gradients go left, times the slopes (blue) on the arrows. Inputs are shaded.")
axes.set_axis_off()
save(figure, "03_graph")

# %% The same with Tensors
section("Tensors")

# A `Tensor` holds an array; a step is a `Function` (Add, Multiply, Convolution, ...), which keeps what it needs for the
# way back. There is no list: each Function points to the Functions that made its inputs, and `walk_back` runs one when
# all that used its result have been run. (It does not call itself for each input: Python would stop that at a depth of
# about a thousand.) So what nobody points to any longer is freed at once. And what needs no gradient, like -t and half
# here, gets none.
w, x, b = (Tensor(np.array(value), requires_grad=True) for value in (2.0, 3.0, -1.0))
error = w * x + b - 4.0
loss = error * error + 0.5 * w * w

function = loss.function
while isinstance(function, Function):  # along the first inputs; a Tensor here is a leaf, None a constant
    print(f"{type(function).__name__} of {', '.join(type(source).__name__ for source in function.sources)}")
    function = function.sources[0]
loss.backward()
agree("loss, and gradients of w, x, b", [loss.item(), w.grad, x.grad, b.grad], [3, 8, 4, 2])
print("freed on the way back:", loss.function.sources is None)

# Arrays follow the same rules, with one more: what was stretched is summed. A bias of shape (3,) added to (4, 3) was
# used by four rows, so four parts come back.
bias = Tensor(np.zeros(3), requires_grad=True)
(Tensor(np.ones((4, 3))) + bias).sum().backward()
agree("gradient of the bias", bias.grad, [4, 4, 4])

# %% A Function of your own, and how to check it
section("A Function of your own")


class Cube(Function):
    def forward(self, a):
        self.a = a  # kept for backward
        return a**3

    def backward(self, gradient):
        return gradient * 3 * self.a**2


class WrongCube(Cube):
    def backward(self, gradient):
        return gradient * 2 * self.a**2


def check(function, array, direction, h=1e-6):
    """What `gradcheck` does: the slope along a direction, once by backward and once by differences."""
    x = Tensor(array, requires_grad=True)
    function(x).sum().backward()
    claimed = (x.grad * direction).sum()
    ahead, behind = function(Tensor(array + h * direction)), function(Tensor(array - h * direction))
    return claimed, (ahead.sum().item() - behind.sum().item()) / (2 * h)


slopes = check(Cube.apply, np.array([2.0]), np.array([1.0]))
agree("slope of x ** 3 at 2, by backward and by differences", slopes, [12, 12], tolerance=1e-5)
gradcheck(Cube.apply, Tensor(np.array([[2.0, -1.0], [0.5, 3.0]]), requires_grad=True))
try:
    gradcheck(WrongCube.apply, Tensor(np.array([2.0]), requires_grad=True))
    raise SystemExit("the wrong gradient went unnoticed")
except AssertionError as complaint:
    print(f"the wrong one is found: {complaint}")

# How far to nudge? Too far, and the curve bends; too little, and the digits of the two numbers cancel. In float64 about
# 1e-5 is best; float32 has half the digits, which is why gradients are checked in float64. (`gradcheck` takes 1e-6,
# which is good enough: its tolerance is 1e-6, too.)
steps = 10.0 ** np.arange(-13, 0.5, 0.25)
figure, axes = plt.subplots(figsize=(7, 4.2))
for kind, color, look in ((np.float64, BLUE, "o-"), (np.float32, RED, "s--")):
    two = kind(2)
    found = [((two + kind(h)) ** 3 - (two - kind(h)) ** 3) / kind(2 * h) for h in steps]
    errors = np.maximum(abs(np.array(found, float) - 12) / 12, 1e-13)
    axes.loglog(steps, errors, look, color=color, markersize=4, label=kind.__name__)
axes.text(1e-12, 1e-8, "digits cancel", ha="center")
axes.text(0.2, 1e-7, "the curve bends", ha="center")
axes.axvline(1e-6, color=GRAY, linestyle=":")
axes.text(1.5e-6, 0.8, "gradcheck's step", color=GRAY, va="center")
axes.set(xlabel="step h", ylabel="error of the slope, as a share", title="The slope of x ** 3 at 2 from a difference")
axes.legend()
save(figure, "03_step")

# A convolution's gradients (lesson 2): y is a sum of products, so each factor's gradient is the other factor, times
# what comes back. By the reference's loops and by the package:
generator = np.random.default_rng(3)
x, weight = generator.standard_normal((1, 6, 7, 2)), generator.standard_normal((3, 3, 2, 4))
back = generator.standard_normal((1, 6, 7, 4))  # the gradient of the output
expected = reference.conv2d_gradient(back, x, weight, padding=1)
x, weight = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
functional.conv2d(x, weight, padding=1).backward(back)
agree("convolution, gradient of x: package against reference", abs(x.grad - expected[0]).max(), 0, tolerance=1e-12)
agree("gradient of the kernel", abs(weight.grad - expected[1]).max(), 0, tolerance=1e-12)
gradcheck(lambda x, weight: functional.conv2d(x, weight, padding=1), x, weight)

# %% What no_grad saves
section("no_grad")

# Going back needs what was kept on the way there: sixteen layers on a map of 1 MiB keep sixteen maps. Who only predicts
# says `with no_grad():`, nothing is written down, and each map is freed when the next is there.


def run_layers(x, layers=16):
    """The memory in use after every layer, in MiB, and the last map."""
    before, used = tracemalloc.get_traced_memory()[0], []
    for _ in range(layers):
        x = functional.sigmoid(x)  # as good as any that keeps its result; lesson 13 has a use for it
        used.append((tracemalloc.get_traced_memory()[0] - before) / 2**20)
    return used, x


x = Tensor(np.zeros((1, 128, 128, 16), np.float32), requires_grad=True)  # 1 MiB
tracemalloc.start()
recorded, last = run_layers(x)
last.backward(np.ones(last.shape))
del last
after = tracemalloc.get_traced_memory()[0] / 2**20
with no_grad():
    free, last = run_layers(x)
tracemalloc.stop()
agree("MiB after 16 layers, recorded and not", [recorded[-1], free[-1]], [16, 1], tolerance=0.1)
agree("MiB left after backward: the gradient of x", after, 1, tolerance=0.1)

figure, axes = plt.subplots(figsize=(7, 3.8))
axes.plot(range(1, 17), recorded, "o-", color=RED, label="recorded: every layer keeps its result")
axes.plot(range(1, 17), free, "s--", color=BLUE, label="with no_grad")
axes.plot([17], [after], "D", color=GREEN, label="recorded, after backward: x.grad", markeredgecolor=BLACK)
axes.set(xlabel="layers done", ylabel="memory in use, MiB", ylim=(0, 18), xticks=range(1, 17))
axes.set_title("Sixteen layers on a map of 1 MiB")
axes.legend(loc="upper left")
save(figure, "03_memory")

# %% Exercises
# 1. With the target t = 6 instead of 4, what is the gradient of w? By hand, then with Tensors. (It comes out as -4.)
answer = None
assert answer is None or answer == -4

# 2. Give Number a method `relu` (negative values become 0). Its slope is 1 above 0, else 0. What are the gradients of w
#    and b if loss = (w * x + b).relu() with w = -2, x = 3, b = 5? (0 and 0: a ReLU that is off lets nothing through.)

# 3. Write a Function `Tanh` (np.tanh; its slope is 1 - tanh ** 2). `gradcheck(Tanh.apply, x)` must not complain for
#    x = Tensor(np.linspace(-2, 2, 7), requires_grad=True), and must complain if you leave the square away.
