# The shell function `conda`, for `conda activate`, where the node's conda is mounted. It activates nothing by itself.
# shellcheck shell=sh
if [ -r /opt/miniconda/etc/profile.d/conda.sh ]; then
  . /opt/miniconda/etc/profile.d/conda.sh
fi
