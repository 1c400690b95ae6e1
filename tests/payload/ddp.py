"""Data-parallel training as anybody writes it for torchrun: DistributedDataParallel over gloo. Knows nothing of us.

Rank 0 prints one line a step: "loss STEP HEX", the mean loss over all ranks with every bit.
"""
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS, BATCH, WIDTH = 20, 16, 64


def main():
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(7)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = torch.Generator().manual_seed(100 + rank)
    target = torch.randn(WIDTH, generator=torch.Generator().manual_seed(9))
    for step in range(1, STEPS + 1):
        inputs = torch.randn(BATCH, WIDTH, generator=data)
        labels = torch.tanh(inputs @ target)
        loss = nn.functional.mse_loss(model(inputs).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        if rank == 0:
            print(f"loss {step} {(mean / world).item().hex()}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
