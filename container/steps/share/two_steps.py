"""Data-parallel training over gloo, two steps, as torchrun starts it; the ranks must agree on the loss and lower it."""
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(1)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    inputs, losses = torch.randn(64, 16), []
    for _ in range(2):
        loss = nn.functional.mse_loss(model(inputs).squeeze(1), inputs.sum(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0], losses
    if dist.get_rank() == 0:
        print(f"PyTorch {torch.__version__}: {dist.get_world_size()} ranks trained {len(losses)} steps")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
