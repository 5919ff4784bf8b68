"""Settings of hand-written algorithms that were tuned once and are used wherever such an agent is needed."""

from metadisco.learner import SGD, Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.mirror_learning import PPO

# For tables. Best on the suite `grid-validation` of the rates 10, 40, 160 by 4, 40, 200 and entropy weights 0, 0.01.
# The rate 640, four times the largest of them, is better still (docs/results/index.md): experiments/tune.py
# tries it too.
TABLE_A2C = A2C(entropy_weight=0.0)
TABLE_A2C_LEARNER = Learner(policy=SGD(160.0), prediction=SGD(4.0))

# For tables. Best on 32 levels of the same suite of the policy rates 10, 40, 160, with 1 or 4 epochs of 1 or 4
# minibatches, annealed or not (docs/results/index.md).
TABLE_PPO = PPO(entropy_weight=0.0)
TABLE_PPO_LEARNER = Learner(policy=SGD(10.0), prediction=SGD(4.0), num_epochs=4, num_minibatches=4)
