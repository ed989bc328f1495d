# Installs this kit into the home of the person who runs it:
#   powershell -ExecutionPolicy Bypass -File install.ps1
# and takes it away again:
#   powershell -ExecutionPolicy Bypass -File install.ps1 -Remove
# NOT TESTED by the collection's tests, which have no Windows: read it before you run it.
param([switch]$Remove)
$ErrorActionPreference = 'Stop'

$kit = $PSScriptRoot
$match = Select-String -Path "$kit\config" -Pattern '^\s*UserKnownHostsFile (~/.*)/known_hosts$' | Select-Object -First 1
if (-not $match) { throw "$kit\config is not a kit for a home: use it with ssh -F" }
$target = $match.Matches[0].Groups[1].Value
$directory = Join-Path $HOME ($target.Substring(2) -replace '/', '\')
$include = "Include $target/config"
$config = Join-Path $HOME '.ssh\config'
$names = 'config', 'known_hosts', 'README.md', 'install.ps1'

function Write-Config([string]$text) {
    $item = Get-Item $config -ErrorAction SilentlyContinue
    if ($item -and ($item.IsReadOnly -or $item.LinkType)) {
        throw "$config is a link or read-only, so it is left alone. Put this line at its very top yourself: $include"
    }
    [IO.File]::WriteAllText("$config.devnode-new", $text, (New-Object Text.UTF8Encoding $false))
    Move-Item -Force "$config.devnode-new" $config
}

$before = if (Test-Path $config) { [IO.File]::ReadAllText($config) } else { '' }
$pattern = '(?im)^[ \t]*Include[ \t=]+"?' + [regex]::Escape("$target/config") + '"?[ \t]*\r?(\n|\z)'
$rest = [regex]::Replace($before, $pattern, '')

if ($Remove) {
    if ($rest -ne $before) { Write-Config $rest }
    foreach ($name in $names) { Remove-Item -Force -ErrorAction SilentlyContinue (Join-Path $directory $name) }
    Remove-Item -ErrorAction SilentlyContinue $directory
    Write-Output 'Taken away. Your keys and the rest of .ssh are as they were.'
}
else {
    New-Item -ItemType Directory -Force (Join-Path $HOME '.ssh'), $directory | Out-Null
    if ($kit -ne $directory) { foreach ($name in $names) { Copy-Item -Force (Join-Path $kit $name) $directory } }
    if ("$include`r`n$rest" -ne $before) { Write-Config "$include`r`n$rest" }
    Write-Output "Installed in $directory."
}
