"""The table of commands: one line of help, a group and examples each, known without importing any of them."""

from __future__ import annotations

from dataclasses import dataclass

IMAGES, TRAIN, USE, HELP = "Get and prepare images", "Train and compare", "Use what you trained", "Look things up"


@dataclass(frozen=True)
class Command:
    """One subcommand: its line in `facekit --help`, its group there, and examples as (command line, what it does)."""

    summary: str
    group: str
    examples: tuple[tuple[str, str], ...]
    module: str = ""  # its file and function, where they are not called as the command


COMMANDS = {
    "crawl": Command(
        "Download pictures from an image board, a list of addresses or a folder.",
        IMAGES,
        (
            ('facekit crawl safebooru raw/ --tags "solo portrait" --limit 500', "500 pictures with these tags"),
            ("facekit crawl urls raw/ --from list.txt", "the addresses in a text file"),
            ("facekit crawl safebooru raw/ --tags solo --limit 500 --dry-run", "how many there are and how large"),
        ),
    ),
    "align": Command(
        "Find faces in photos and crop them as level squares.",
        IMAGES,
        (
            ("facekit align photos/ faces/ --size 256", "the largest face of each photo"),
            ("facekit align group.jpg faces/ --faces all", "every face in one photo"),
        ),
    ),
    "clean": Command(
        "Find duplicates, near-duplicates and bad images; keep the best of each group.",
        IMAGES,
        (
            ("facekit clean raw/ good/", "a report only: good/report.html"),
            ("facekit clean raw/ good/ --apply", "copy what is kept to good/"),
            ("facekit clean raw/ good/ --split 8:1:1 --apply", "also split into train, val and test"),
        ),
    ),
    "smooth-edges": Command(
        "Blur drawings along their edges only, for CartoonGAN and AnimeGAN training.",
        IMAGES,
        (("facekit smooth-edges toons/ smooth/", "a blurred twin for every drawing"),),
    ),
    "pack": Command(
        "Pack a folder of images into tar files that every command reads.",
        IMAGES,
        (
            ("facekit pack faces/ shards/", "tar files of 256 MB, in WebDataset's layout, with an index"),
            ("facekit pack faces/ shards/ --shard-size 1000", "tar files of about 1 GB"),
            ("facekit pack downloaded/", "index tar files that another program wrote"),
        ),
    ),
    "pairs": Command(
        "Let a teacher draw faces, and keep the pairs that a student should learn from.",
        IMAGES,
        (
            ("facekit pairs faces/ pairs/ --teacher runs/teacher", "drawn by weights of facekit"),
            ("facekit pairs faces/ pairs/ --teacher-command 'python my_edit.py {in} {out}'", "drawn by any program"),
            ("facekit pairs pairs/ --from runs/faces --and runs/toons -n 10000", "one latent through two generators"),
        ),
    ),
    "train": Command(
        "Train a face translator on two folders of images.",
        TRAIN,
        (
            ("facekit train projected-cut --a faces/ --b toons/ --size 128", "runs/projected-cut, with previews"),
            ("facekit train ugatit-light --data selfie2anime/ --dry-run", "card, parameters and memory only"),
            ("facekit train --card runs/mine/card.yaml --out runs/again", "repeat a run"),
        ),
    ),
    "watch": Command(
        "Follow runs on a page while they train, several side by side.",
        TRAIN,
        (
            ("facekit watch runs/mine --open", "losses, previews, speed and time left"),
            ("facekit watch runs/*", "all runs on one page"),
        ),
    ),
    "train-segnet": Command(
        "Train a network that labels the parts of a face.",
        TRAIN,
        (("facekit train-segnet segnet --data CelebAMask-HQ/ --out runs/segnet", "from photos with masks"),),
    ),
    "train-detector": Command(
        "Train a network that finds faces in photos and drawings.",
        TRAIN,
        (("facekit train-detector --data labelled/ --out runs/detector", "from pictures with faces.jsonl"),),
    ),
    "ablate": Command(
        "Train variants of a method and compare their scores in one report.",
        TRAIN,
        (
            ("facekit ablate ugatit-face --data data/ --drop feature --out runs/ablation", "without one loss"),
            ("facekit ablate my-card.yaml --sweep losses.cycle=1,10,100 --out runs/cycle", "three weights of a loss"),
        ),
    ),
    "translate": Command(
        "Translate faces, photos or films with trained weights.",
        USE,
        (
            ("facekit translate me.jpg me-anime.png", "one photo, with the weights that come with facekit"),
            ("facekit translate holiday/ out/ --paste --sheet", "faces pasted back into their photos"),
            ("facekit translate faces/ out/ --weights runs/mine --to anime", "your own weights"),
            ("facekit translate clip.mp4 out.mp4 --faces all", "every face of a film, with its sound"),
            ("facekit translate photos/ out/ --weights anime,runs/mine --sheet", "two weights side by side"),
        ),
    ),
    "serve": Command(
        "Translate faces over HTTP, for other programs.",
        USE,
        (
            ("facekit serve", "http://127.0.0.1:8000, with the weights that come with facekit"),
            ("facekit serve runs/mine anime --port 9000", "your own weights and those"),
        ),
    ),
    "demo": Command(
        "Show a page on which people drop a photo and see it translated.",
        USE,
        (
            ("facekit demo", "opens on this machine, with the weights that come with facekit"),
            ("facekit demo runs/mine runs/expression --open", "your own weights, in your browser"),
        ),
    ),
    "sample": Command(
        "Draw faces from noise with a StyleGAN2 run.",
        USE,
        (
            ("facekit sample runs/stylegan2 out/ -n 64 --sheet", "64 faces and a contact sheet"),
            ("facekit sample runs/faces out/ --with runs/toons --sheet", "the same latents through two runs"),
            ("facekit sample runs/faces out/ --with runs/toons --swap-at 32", "fine layers of the second run"),
        ),
    ),
    "import": Command(
        "Read weights that the authors' code of a method has written.",
        USE,
        (
            ("facekit import latest_net_G_A.pth zebra.safetensors --as cyclegan", "one generator, to translate with"),
            (
                "facekit import 200000-G.ckpt hair.safetensors --as stargan --labels Black_Hair,Blond_Hair,Brown_Hair,"
                "Male,Young --set params.single=false",
                "labels in the authors' order",
            ),
            ("facekit import selfie2anime_params_latest.pt runs/official --as ugatit", "all nets, for train --init"),
        ),
        "import_weights",
    ),
    "export": Command(
        "Write trained weights as an ONNX file, for programs without PyTorch.",
        USE,
        (("facekit export anime anime.onnx", "the weights that come with facekit"),),
    ),
    "score-fid": Command(
        "Score images against real ones: FID, KID, and how much of the face stays.",
        USE,
        (
            ("facekit score-fid out/ testB/", "FID and KID"),
            ("facekit score-fid out/ testB/ --source testA/", "also how much of the input faces stays"),
        ),
    ),
    "compare": Command(
        "Let people choose between methods without knowing which is which.",
        USE,
        (
            ("facekit compare ours/ theirs/ --source photos/ --page vote/", "a page to vote on: vote/index.html"),
            ("facekit compare --page vote/ --votes ann.json --votes ben.json", "who won, with intervals"),
        ),
    ),
    "weights": Command(
        "List the trained weights at hand, or show the model card of one.",
        HELP,
        (
            ("facekit weights", "those that come with facekit, those downloaded, and your runs"),
            ("facekit weights anime", "what they do well and badly, and their licence"),
            ("facekit weights --page weights.html", "a page with a picture of what each of them draws"),
        ),
    ),
    "recipes": Command(
        "List the methods that `train` knows, or describe one.",
        HELP,
        (
            ("facekit recipes", "all of them"),
            ("facekit recipes ugatit-light", "one in full: losses, parameters, defaults, paper"),
        ),
    ),
    "examples": Command(
        "Write the example cards, card schema, Makefile and recipe into a folder.",
        HELP,
        (("facekit examples my-project/", "files to start from"),),
    ),
    "env": Command(
        "Print versions, device, models and folders: what a bug report needs.",
        HELP,
        (("facekit env", "paste this into a bug report"), ("facekit env --json", "the same for programs")),
    ),
}
