import jetbrains.buildServer.configs.kotlin.BuildType
import jetbrains.buildServer.configs.kotlin.DslContext
import jetbrains.buildServer.configs.kotlin.FailureAction
import jetbrains.buildServer.configs.kotlin.buildSteps.script
import jetbrains.buildServer.configs.kotlin.project
import jetbrains.buildServer.configs.kotlin.triggers.vcs
import jetbrains.buildServer.configs.kotlin.version

/*
 * Lint, type check and platform check run at the same time. The tests follow, then one image for every role. Its
 * deployment with Helm is started by hand. Each step is a make target or a command from the documents, so that a
 * failure here can be repeated on a developer's machine.
 *
 * An agent needs Linux, Rust (installed with rustup) and Go; for the image also Docker, and for the deployment Helm. A
 * target installs or names whatever else it needs.
 */
version = "2025.07"

/** Runs one script on a clean checkout, after the builds in `after` have succeeded on the same revision. */
open class Stage(
  title: String,
  minutes: Int,
  after: List<BuildType>,
  commands: String,
) : BuildType({
    id(title.replace(" ", ""))
    name = title
    vcs {
      root(DslContext.settingsRoot)
      cleanCheckout = true
    }
    steps {
      script {
        name = title
        scriptContent = "set -eu\n" + commands.trimIndent()
      }
    }
    params {
      param("env.CI", "true")
      param("env.CARGO_INCREMENTAL", "0")
      param("env.CARGO_TERM_COLOR", "never")
    }
    failureConditions {
      executionTimeoutMin = minutes
    }
    requirements {
      equals("teamcity.agent.jvm.os.name", "Linux")
    }
    dependencies {
      after.forEach { earlier ->
        snapshot(earlier) {
          onDependencyFailure = FailureAction.FAIL_TO_START
        }
      }
    }
  })

object Lint : Stage("Lint", minutes = 30, after = emptyList(), commands = "make lint")

object TypeCheck : Stage(
  "Type check",
  minutes = 30,
  after = emptyList(),
  commands = "cargo check --locked --all-targets",
)

object PlatformCheck : Stage(
  "Platform check",
  minutes = 60,
  after = emptyList(),
  commands = "make platform-check",
)

object Test : Stage(
  "Test",
  minutes = 60,
  after = listOf(Lint, TypeCheck),
  commands =
    """
    make test
    make torture SECONDS=45 SEED=1
    make api-check
    """,
)

object Image : Stage(
  "Image",
  minutes = 60,
  after = listOf(Test, PlatformCheck),
  commands =
    """
    image="%ledger.image%:%build.vcs.number%"
    docker build --file Containerfile --tag "${'$'}image" \
      --build-arg VERSION=%build.number% --build-arg REVISION=%build.vcs.number% \
      --build-arg REVISION_DATE="${'$'}(git log -1 --format=%%cs)" .
    docker push "${'$'}image"
    docker inspect --format '{{index .RepoDigests 0}}' "${'$'}image" | sed 's/.*@//' | tr -d '\n' > image-digest.txt
    """,
) {
  init {
    artifactRules = "image-digest.txt"
    // Every commit runs the stages up to this one.
    triggers {
      vcs {
        branchFilter = "+:<default>"
      }
    }
  }
}

object Deploy : Stage(
  "Deploy",
  minutes = 30,
  after = listOf(Image),
  commands =
    """
    helm upgrade ledger k8s/ledger --install --atomic --timeout 15m --namespace "%ledger.namespace%" \
      --values k8s/ledger/values-prod.yaml --set-file rules=config/rules.toml \
      --set image.repository="%ledger.image%" --set image.digest="${'$'}(cat image-digest.txt)"
    """,
) {
  init {
    type = Type.DEPLOYMENT
    enablePersonalBuilds = false
    maxRunningBuilds = 1
    dependencies {
      artifacts(Image) {
        artifactRules = "image-digest.txt"
      }
    }
  }
}

project {
  description = "An event-driven transaction and risk platform"
  params {
    text("ledger.image", "", label = "Image", description = "Registry and name, without a tag", allowEmpty = false)
    text("ledger.namespace", "ledger", label = "Namespace of the deployment", allowEmpty = false)
    text("env.KUBECONFIG", "", label = "The agent's kubeconfig", description = "Path on the agent", allowEmpty = true)
  }
  listOf(Lint, TypeCheck, PlatformCheck, Test, Image, Deploy).forEach { buildType(it) }
}
